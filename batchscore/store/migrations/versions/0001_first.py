"""The first schema: installation, runs, stages, partitions, attempts, outputs, flags, and the reviewers' view."""

import sqlalchemy as sa
from alembic import context
from sqlalchemy.dialects import mysql

from batchscore.store.steps import Steps

revision = "0001"
down_revision = None

LONG = sa.Text().with_variant(mysql.LONGTEXT(), "mysql")
INTEGER_ID = sa.BigInteger().with_variant(mysql.BIGINT(unsigned=True), "mysql")
STRING_ID = sa.LargeBinary(255).with_variant(mysql.VARBINARY(255), "mysql")


def upgrade() -> None:
    """Make every table and the view. Migrations are fixed text: they do not follow later changes of `tables`."""
    steps = Steps(revision)
    kind = context.config.attributes["id_kind"]
    held = INTEGER_ID if kind == "integer" else STRING_ID
    steps.create_table("installation", sa.Column("id_kind", sa.String(16), primary_key=True))
    made = f"INSERT INTO installation (id_kind) VALUES ('{kind}')"  # noqa: S608 (one of two words)
    steps.execute(made, unless="EXISTS (SELECT 1 FROM installation)")
    steps.create_table(
        "runs",
        sa.Column("run_id", sa.String(40), primary_key=True),
        sa.Column("plan_digest", sa.String(64), nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("plan", LONG, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("why", LONG, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("lease_owner", sa.String(255), nullable=False),
        sa.Column("lease_until", sa.Double, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.Column("finished_at", sa.Double),
        sa.Column("decision_path", LONG),
        sa.Column("decision_sha256", sa.String(64)),
        sa.Column("memory_path", LONG),
        sa.Column("memory_sha256", sa.String(64)),
        sa.Column("released_at", sa.Double),
    )
    steps.create_index("ix_runs_plan_digest", "runs", ["plan_digest"])
    steps.create_index("ix_runs_created_at", "runs", ["created_at"])
    steps.create_table(
        "stages",
        sa.Column("run_id", sa.String(40), sa.ForeignKey("runs.run_id"), primary_key=True),
        sa.Column("stage", sa.String(16), primary_key=True),
        sa.Column("layout_digest", sa.String(64), nullable=False),
        sa.Column("laid_out_at", sa.Double, nullable=False),
    )
    steps.create_table(
        "partitions",
        sa.Column("run_id", sa.String(40), sa.ForeignKey("runs.run_id"), primary_key=True),
        sa.Column("stage", sa.String(16), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("address", sa.String(128), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("n_rows", sa.BigInteger, nullable=False),
        sa.Column("n_failures", sa.Integer, nullable=False),
        sa.Column("n_suspicions", sa.Integer, nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("message", LONG, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.Column("work", LONG, nullable=False),
        sa.Column("receipt", LONG),
    )
    steps.create_index("partitions_by_address", "partitions", ["address", "state"])
    steps.create_table(
        "attempts",
        sa.Column("attempt_id", sa.Integer, primary_key=True),
        sa.Column("run_id", sa.String(40), sa.ForeignKey("runs.run_id"), nullable=False),
        sa.Column("stage", sa.String(16), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("message", LONG, nullable=False),
        sa.Column("isolated", sa.Boolean, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("ended_at", sa.Double, nullable=False),
    )
    steps.create_index("ix_attempts_run_id", "attempts", ["run_id"])
    steps.create_table(
        "outputs",
        sa.Column("path", sa.String(255), primary_key=True),
        sa.Column("address", sa.String(128), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("n_bytes", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    steps.create_table(
        "run_outputs",
        sa.Column("run_id", sa.String(40), sa.ForeignKey("runs.run_id"), primary_key=True),
        sa.Column("path", sa.String(255), sa.ForeignKey("outputs.path"), primary_key=True),
    )
    steps.create_index("ix_run_outputs_path", "run_outputs", ["path"])
    steps.create_table(
        "flags",
        sa.Column("queue", sa.String(64), primary_key=True),
        sa.Column("account_id", held, primary_key=True),
        sa.Column("run_id", sa.String(40), primary_key=True),
        sa.Column("as_of", sa.BigInteger, nullable=False),
        sa.Column("rank", sa.BigInteger, nullable=False),
        sa.Column("score", sa.Double, nullable=False),
        sa.Column("margin", sa.Double, nullable=False),
        sa.Column("reasons", LONG, nullable=False),
        sa.Column("bundle_digest", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("open_marker", sa.Integer),
        sa.Column("opened_at", sa.BigInteger, nullable=False),
        sa.Column("closed_at", sa.BigInteger),
        sa.UniqueConstraint("queue", "account_id", "open_marker", name="one_open_flag"),
    )
    steps.create_index("ix_flags_run_id", "flags", ["run_id"])
    steps.view(
        "review_queue",
        "SELECT flags.*, runs.released_at FROM flags JOIN runs ON runs.run_id = flags.run_id "
        "WHERE runs.released_at IS NOT NULL AND flags.open_marker = 1",
    )
