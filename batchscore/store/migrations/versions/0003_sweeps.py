"""Sweeps: which plans are the sweeps of a spec, by its name and their as-of."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

IN_MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    """Make the table; what was run before it was no sweep."""
    op.create_table(
        "sweeps",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("as_of", sa.BigInteger, primary_key=True),
        sa.Column("plan_digest", sa.String(64), primary_key=True),
        sa.Column("begun_at", sa.Double, nullable=False),
        **IN_MYSQL,
    )
    op.create_index("ix_sweeps_plan_digest", "sweeps", ["plan_digest"])
