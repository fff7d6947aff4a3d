"""What was accepted of a run whose libraries changed, and by when a run is to be over."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

IN_MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    """Nothing was accepted before, and no run had a deadline."""
    op.create_table(
        "acceptances",
        sa.Column("run_id", sa.String(40), sa.ForeignKey("runs.run_id"), primary_key=True),
        sa.Column("part", sa.String(128), primary_key=True),
        sa.Column("became", sa.String(128), primary_key=True),
        sa.Column("was", sa.String(128), nullable=False),
        sa.Column("accepted_by", sa.String(255), nullable=False),
        sa.Column("accepted_at", sa.Double, nullable=False),
        sa.Column("from_epoch", sa.Integer),
        **IN_MYSQL,
    )
    for name in ("deadline_at", "expected_at", "late_since"):
        op.add_column("runs", sa.Column(name, sa.Double))
