"""Holds: what a guard held a run for, and who approved it."""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from batchscore.store.steps import Steps

revision = "0006"
down_revision = "0005"

LONG = sa.Text().with_variant(mysql.LONGTEXT(), "mysql")


def upgrade() -> None:
    """Make the table; no run was held before it."""
    steps = Steps(revision)
    steps.create_table(
        "holds",
        sa.Column("run_id", sa.String(40), sa.ForeignKey("runs.run_id"), primary_key=True),
        sa.Column("subject", sa.String(16), primary_key=True),
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("findings", LONG, nullable=False),
        sa.Column("held_at", sa.Double, nullable=False),
        sa.Column("approved_by", sa.String(255)),
        sa.Column("approved_because", LONG),
        sa.Column("approved_at", sa.Double),
    )
