"""Natural keys for attempts; each run's last write; a row for each queue. A write whose answer was lost can be asked after."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0004"
down_revision = "0003"

IN_MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
LONG = sa.Text().with_variant(mysql.LONGTEXT(), "mysql")


def upgrade() -> None:
    """Attempts keep their order: the first at a partition becomes its number 1."""
    op.add_column("runs", sa.Column("last_write", sa.String(32), nullable=False, server_default=""))
    op.create_table("queues", sa.Column("queue", sa.String(64), primary_key=True), **IN_MYSQL)
    op.execute("INSERT INTO queues (queue) SELECT DISTINCT queue FROM flags")
    op.create_table(
        "numbered_attempts",
        sa.Column("run_id", sa.String(40), sa.ForeignKey("runs.run_id"), primary_key=True),
        sa.Column("stage", sa.String(16), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("ordinal", sa.Integer, primary_key=True),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("message", LONG, nullable=False),
        sa.Column("isolated", sa.Boolean, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("ended_at", sa.Double, nullable=False),
        **IN_MYSQL,
    )
    op.execute(
        "INSERT INTO numbered_attempts (run_id, stage, number, ordinal, outcome, reason, message, isolated, epoch, ended_at) "
        "SELECT run_id, stage, number, ROW_NUMBER() OVER (PARTITION BY run_id, stage, number ORDER BY attempt_id), "
        "outcome, reason, message, isolated, epoch, ended_at FROM attempts"
    )
    op.drop_table("attempts")
    op.rename_table("numbered_attempts", "attempts")
