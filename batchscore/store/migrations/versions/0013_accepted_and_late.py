"""What was accepted of a run whose libraries changed, and by when a run is to be over."""

import sqlalchemy as sa

from batchscore.store.steps import Steps

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Nothing was accepted before, and no run had a deadline."""
    steps = Steps(revision)
    steps.create_table(
        "acceptances",
        sa.Column("run_id", sa.String(40), sa.ForeignKey("runs.run_id"), primary_key=True),
        sa.Column("part", sa.String(128), primary_key=True),
        sa.Column("became", sa.String(128), primary_key=True),
        sa.Column("was", sa.String(128), nullable=False),
        sa.Column("accepted_by", sa.String(255), nullable=False),
        sa.Column("accepted_at", sa.Double, nullable=False),
        sa.Column("from_epoch", sa.Integer),
    )
    for name in ("deadline_at", "expected_at", "late_since"):
        steps.add_column("runs", sa.Column(name, sa.Double))
