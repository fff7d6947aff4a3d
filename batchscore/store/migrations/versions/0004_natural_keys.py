"""Natural keys for attempts; each run's last write; a row for each queue. A write whose answer was lost can be asked after."""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from batchscore.store.steps import Steps, has_column, has_table

revision = "0004"
down_revision = "0003"

LONG = sa.Text().with_variant(mysql.LONGTEXT(), "mysql")


NUMBERED = has_column("attempts", "ordinal")
FILL = (
    "INSERT INTO numbered_attempts (run_id, stage, number, ordinal, outcome, reason, message, isolated, epoch, ended_at) "
    "SELECT run_id, stage, number, ROW_NUMBER() OVER (PARTITION BY run_id, stage, number ORDER BY attempt_id), "
    "outcome, reason, message, isolated, epoch, ended_at FROM attempts"
)
FILL_ONCE = f"{FILL} WHERE NOT EXISTS (SELECT 1 FROM numbered_attempts)"  # noqa: S608 (fixed text)


def upgrade() -> None:
    """Attempts keep their order: the first at a partition becomes its number 1."""
    steps = Steps(revision)
    steps.add_column("runs", sa.Column("last_write", sa.String(32), nullable=False, server_default=""))
    steps.create_table("queues", sa.Column("queue", sa.String(64), primary_key=True))
    steps.execute("INSERT INTO queues (queue) SELECT DISTINCT queue FROM flags", unless="EXISTS (SELECT 1 FROM queues)")
    steps.create_table(
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
        unless=NUMBERED,
    )
    if not steps.on_mysql:
        steps.execute(FILL)
        steps.execute("DROP TABLE attempts")
        steps.execute("ALTER TABLE numbered_attempts RENAME TO attempts")
        return
    gone = f"NOT {has_table('attempts')}"  # an upgrade by an earlier release was cut between dropping and renaming
    steps.execute(FILL_ONCE, unless=f"{NUMBERED} OR {gone}")
    steps.execute("RENAME TABLE attempts TO attempts_before, numbered_attempts TO attempts", unless=f"{NUMBERED} OR {gone}")
    steps.execute("RENAME TABLE numbered_attempts TO attempts", unless=NUMBERED)
    steps.execute("DROP TABLE IF EXISTS attempts_before")
