"""A run's row says how long it waited for a live source, and how far replicas were behind."""

import sqlalchemy as sa

from batchscore.store.steps import Steps

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Runs of before waited for none."""
    steps = Steps(revision)
    steps.add_column("runs", sa.Column("held_back_s", sa.Double, nullable=False, server_default="0"))
    steps.add_column("runs", sa.Column("worst_lag_s", sa.Double))
