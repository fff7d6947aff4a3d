"""A run's row says where its attempts ran, so that a report can."""

import sqlalchemy as sa

from batchscore.store.steps import Steps

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Runs of before are left without it."""
    steps = Steps(revision)
    steps.add_column("runs", sa.Column("executor", sa.String(255), nullable=False, server_default=""))
