"""Undo and the audit trail: when a run was undone, which run's flag one gave way to, and a chain of who did what.

Of flags that were overtaken before, nobody wrote down by which run: the undo of a run of that time restores none.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0007"
down_revision = "0006"

IN_MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
LONG = sa.Text().with_variant(mysql.LONGTEXT(), "mysql")


def upgrade() -> None:
    """The reviewers' view leaves out what an undo has begun to withdraw: all of it at once."""
    op.add_column("runs", sa.Column("undo_begun_at", sa.Double))
    op.add_column("runs", sa.Column("undone_at", sa.Double))
    op.add_column("runs", sa.Column("undone_by", sa.String(255)))
    op.add_column("runs", sa.Column("undone_why", LONG))
    op.add_column("flags", sa.Column("overtaken_by", sa.String(40)))
    op.create_table(
        "audit",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("act", sa.String(32), nullable=False),
        sa.Column("who", sa.String(255), nullable=False),
        sa.Column("run_id", sa.String(40), nullable=False),
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("detail", LONG, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        **IN_MYSQL,
    )
    op.create_index("ix_audit_run_id", "audit", ["run_id"])
    head = op.create_table(
        "audit_head",
        sa.Column("chain", sa.String(16), primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        **IN_MYSQL,
    )
    op.bulk_insert(head, [{"chain": "store", "number": 0, "digest": "0" * 64}])
    op.execute("DROP VIEW review_queue")
    op.execute(
        "CREATE VIEW review_queue AS SELECT flags.*, runs.released_at FROM flags JOIN runs ON runs.run_id = flags.run_id "
        "WHERE runs.released_at IS NOT NULL AND flags.open_marker = 1 "
        "AND (runs.undo_begun_at IS NULL OR flags.state <> 'open')"
    )
