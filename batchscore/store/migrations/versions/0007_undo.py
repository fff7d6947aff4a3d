"""Undo and the audit trail: when a run was undone, which run's flag one gave way to, and a chain of who did what.

Of flags that were overtaken before, nobody wrote down by which run: the undo of a run of that time restores none.
"""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from batchscore.store.steps import Steps

revision = "0007"
down_revision = "0006"

LONG = sa.Text().with_variant(mysql.LONGTEXT(), "mysql")


def upgrade() -> None:
    """The reviewers' view leaves out what an undo has begun to withdraw: all of it at once."""
    steps = Steps(revision)
    steps.add_column("runs", sa.Column("undo_begun_at", sa.Double))
    steps.add_column("runs", sa.Column("undone_at", sa.Double))
    steps.add_column("runs", sa.Column("undone_by", sa.String(255)))
    steps.add_column("runs", sa.Column("undone_why", LONG))
    steps.add_column("flags", sa.Column("overtaken_by", sa.String(40)))
    steps.create_table(
        "audit",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("act", sa.String(32), nullable=False),
        sa.Column("who", sa.String(255), nullable=False),
        sa.Column("run_id", sa.String(40), nullable=False),
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("detail", LONG, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
    )
    steps.create_index("ix_audit_run_id", "audit", ["run_id"])
    steps.create_table(
        "audit_head",
        sa.Column("chain", sa.String(16), primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
    )
    begins = f"INSERT INTO audit_head (chain, number, digest) VALUES ('store', 0, '{'0' * 64}')"  # noqa: S608 (fixed text)
    steps.execute(begins, unless="EXISTS (SELECT 1 FROM audit_head)")
    steps.view(
        "review_queue",
        "SELECT flags.*, runs.released_at FROM flags JOIN runs ON runs.run_id = flags.run_id "
        "WHERE runs.released_at IS NOT NULL AND flags.open_marker = 1 "
        "AND (runs.undo_begun_at IS NULL OR flags.state <> 'open')",
    )
