"""The tables of a store, for queries. The migrations make them; a test compares the two.

``*_at`` columns are seconds since 1970 in UTC by the database's clock (float64), except ``as_of`` and the times of flags,
which are microseconds (integers), because they are compared for equality.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

metadata = sa.MetaData()

# One row: what was fixed when the store was made.
installation: Final = sa.Table("installation", metadata, sa.Column("id_kind", sa.String(16), primary_key=True))

runs: Final = sa.Table(
    "runs",
    metadata,
    sa.Column("run_id", sa.String(40), primary_key=True),
    sa.Column("plan_digest", sa.String(64), nullable=False, index=True),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("plan", sa.Text, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("lease_owner", sa.String(255), nullable=False),
    sa.Column("lease_until", sa.Float, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False, index=True),
    sa.Column("updated_at", sa.Float, nullable=False),
    sa.Column("finished_at", sa.Float),
    sa.Column("decision_path", sa.Text),
    sa.Column("decision_sha256", sa.String(64)),
    sa.Column("memory_path", sa.Text),
    sa.Column("memory_sha256", sa.String(64)),
    sa.Column("released_at", sa.Float),
    sa.Column("executor", sa.String(255), nullable=False, server_default=""),
)

# The sweeps of each spec, by name. How far a spec has come (its watermark) follows from the runs of these plans.
sweeps: Final = sa.Table(
    "sweeps",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("as_of", sa.BigInteger, primary_key=True),
    sa.Column("plan_digest", sa.String(64), primary_key=True, index=True),
    sa.Column("begun_at", sa.Float, nullable=False),
)

stages: Final = sa.Table(
    "stages",
    metadata,
    sa.Column("run_id", sa.ForeignKey("runs.run_id"), primary_key=True),
    sa.Column("stage", sa.String(16), primary_key=True),
    sa.Column("layout_digest", sa.String(64), nullable=False),
    sa.Column("laid_out_at", sa.Float, nullable=False),
)

partitions: Final = sa.Table(
    "partitions",
    metadata,
    sa.Column("run_id", sa.ForeignKey("runs.run_id"), primary_key=True),
    sa.Column("stage", sa.String(16), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("address", sa.String(128), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("n_rows", sa.BigInteger, nullable=False),
    sa.Column("n_failures", sa.Integer, nullable=False),
    sa.Column("n_suspicions", sa.Integer, nullable=False),
    sa.Column("reason", sa.String(64), nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("updated_at", sa.Float, nullable=False),
    sa.Column("work", sa.Text, nullable=False),
    sa.Column("receipt", sa.Text),
    sa.Index("partitions_by_address", "address", "state"),
)

attempts: Final = sa.Table(
    "attempts",
    metadata,
    sa.Column("attempt_id", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.ForeignKey("runs.run_id"), nullable=False, index=True),
    sa.Column("stage", sa.String(16), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("reason", sa.String(64), nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("isolated", sa.Boolean, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("ended_at", sa.Float, nullable=False),
)

outputs: Final = sa.Table(
    "outputs",
    metadata,
    sa.Column("path", sa.String(255), primary_key=True),
    sa.Column("address", sa.String(128), nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("n_bytes", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
)

run_outputs: Final = sa.Table(
    "run_outputs",
    metadata,
    sa.Column("run_id", sa.ForeignKey("runs.run_id"), primary_key=True),
    sa.Column("path", sa.ForeignKey("outputs.path"), primary_key=True, index=True),
)


def flags_table(id_kind: str) -> sa.Table:
    """The flags, with ids of the store's kind: exact integers, or the bytes of the text, which no collation folds.

    ``open_marker`` is 1 while the flag is open and null otherwise: unique with queue and account, it lets the database
    itself hold at most one open flag for each.
    """
    held = sa.BigInteger if id_kind == "integer" else sa.LargeBinary(255)
    return sa.Table(
        "flags",
        sa.MetaData(),
        sa.Column("queue", sa.String(64), primary_key=True),
        sa.Column("account_id", held, primary_key=True),
        sa.Column("run_id", sa.String(40), primary_key=True, index=True),
        sa.Column("as_of", sa.BigInteger, nullable=False),
        sa.Column("rank", sa.BigInteger, nullable=False),
        sa.Column("score", sa.Double, nullable=False),
        sa.Column("margin", sa.Double, nullable=False),
        sa.Column("reasons", sa.Text, nullable=False),
        sa.Column("bundle_digest", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("open_marker", sa.Integer),
        sa.Column("opened_at", sa.BigInteger, nullable=False),
        sa.Column("closed_at", sa.BigInteger),
        sa.UniqueConstraint("queue", "account_id", "open_marker", name="one_open_flag"),
    )
