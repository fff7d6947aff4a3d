"""What people ask of a run: to pause or to be cancelled, by whom, and whether its driver has seen it."""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from batchscore.store.steps import Steps

revision = "0009"
down_revision = "0008"

LONG = sa.Text().with_variant(mysql.LONGTEXT(), "mysql")


def upgrade() -> None:
    """Nothing was asked of the runs there are."""
    steps = Steps(revision)
    steps.add_column("runs", sa.Column("requested_state", sa.String(16), nullable=False, server_default=""))
    steps.add_column("runs", sa.Column("request_number", sa.Integer, nullable=False, server_default="0"))
    steps.add_column("runs", sa.Column("requested_by", sa.String(255)))
    steps.add_column("runs", sa.Column("requested_why", LONG))
    steps.add_column("runs", sa.Column("requested_at", sa.Double))
    steps.add_column("runs", sa.Column("request_seen_at", sa.Double))
    steps.add_column("runs", sa.Column("request_met_at", sa.Double))
