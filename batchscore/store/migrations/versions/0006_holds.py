"""Holds: what a guard held a run for, and who approved it."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0006"
down_revision = "0005"

IN_MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
LONG = sa.Text().with_variant(mysql.LONGTEXT(), "mysql")


def upgrade() -> None:
    """Make the table; no run was held before it."""
    op.create_table(
        "holds",
        sa.Column("run_id", sa.String(40), sa.ForeignKey("runs.run_id"), primary_key=True),
        sa.Column("subject", sa.String(16), primary_key=True),
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("findings", LONG, nullable=False),
        sa.Column("held_at", sa.Double, nullable=False),
        sa.Column("approved_by", sa.String(255)),
        sa.Column("approved_because", LONG),
        sa.Column("approved_at", sa.Double),
        **IN_MYSQL,
    )
