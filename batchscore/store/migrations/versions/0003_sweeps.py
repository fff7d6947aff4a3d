"""Sweeps: which plans are the sweeps of a spec, by its name and their as-of."""

import sqlalchemy as sa

from batchscore.store.steps import Steps

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the table; what was run before it was no sweep."""
    steps = Steps(revision)
    steps.create_table(
        "sweeps",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("as_of", sa.BigInteger, primary_key=True),
        sa.Column("plan_digest", sa.String(64), primary_key=True),
        sa.Column("begun_at", sa.Double, nullable=False),
    )
    steps.create_index("ix_sweeps_plan_digest", "sweeps", ["plan_digest"])
