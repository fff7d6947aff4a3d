"""What people own (claims, dispositions, suppressions), evidence on a standing flag, and the numbered events of both.

Flags of before are numbered in the order of their keys, and each release of before gets its event: a consumer that begins at
the beginning hears of all flags that stand.
"""

from typing import Any

import sqlalchemy as sa
from alembic import context
from sqlalchemy.dialects import mysql

from batchscore.store.steps import Steps

revision = "0008"
down_revision = "0007"

LONG = sa.Text().with_variant(mysql.LONGTEXT(), "mysql")
INTEGER_ID = sa.BigInteger().with_variant(mysql.BIGINT(unsigned=True), "mysql")
STRING_ID = sa.LargeBinary(255).with_variant(mysql.VARBINARY(255), "mysql")

COUNTED = "(SELECT queue, account_id, run_id, ROW_NUMBER() OVER (PARTITION BY run_id ORDER BY queue, account_id) AS n FROM flags)"
SAME = "flags.queue = counted.queue AND flags.account_id = counted.account_id AND flags.run_id = counted.run_id"


def upgrade() -> None:
    """Make the tables, and number what is there."""
    steps = Steps(revision)
    held = INTEGER_ID if context.config.attributes["id_kind"] == "integer" else STRING_ID
    steps.add_column("flags", sa.Column("released_as", sa.String(16), nullable=False, server_default="opened"))
    steps.add_column("flags", sa.Column("release_ordinal", sa.Integer, nullable=False, server_default="0"))
    steps.add_column("flags", sa.Column("group_key", sa.String(255), nullable=False, server_default=""))
    steps.add_column("flags", sa.Column("since", sa.String(1024), nullable=False, server_default=""))
    steps.add_column("flags", sa.Column("second_reviewer", sa.Boolean, nullable=False, server_default="0"))
    steps.create_index("flags_by_run", "flags", ["run_id", "release_ordinal"])
    steps.drop_index("ix_flags_run_id", "flags")
    steps.create_table(
        "claims",
        *_of_flag(held),
        sa.Column("reviewer", sa.String(255), nullable=False),
        sa.Column("claimed_at", sa.BigInteger, nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger),
    )
    steps.create_table(
        "dispositions",
        *_of_flag(held),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("disposition", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reviewer", sa.String(255), nullable=False),
        sa.Column("decided_at", sa.BigInteger, nullable=False),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
        sa.Column("evidence", sa.Integer, nullable=False),
        sa.Column("evidence_run", sa.String(40), nullable=False),
        sa.Column("why", LONG, nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
    )
    steps.create_table(
        "suppressions",
        sa.Column("queue", sa.String(64), primary_key=True),
        sa.Column("scope", sa.String(16), primary_key=True),
        sa.Column("subject", STRING_ID, primary_key=True),
        sa.Column("begins_at", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("until", sa.BigInteger, nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("why", LONG, nullable=False),
        sa.Column("removed_by", sa.String(255)),
    )
    steps.create_table(
        "events",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("n", sa.BigInteger, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("act", sa.String(16), nullable=False),
        sa.Column("who", sa.String(255), nullable=False),
        sa.Column("queue", sa.String(64), nullable=False),
        sa.Column("account_id", held),
        sa.Column("run_id", sa.String(40), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
    )
    steps.execute("UPDATE flags SET released_as = 'evidence' WHERE state = 'overtaken'")
    if steps.on_mysql:
        steps.execute(f"UPDATE flags JOIN {COUNTED} AS counted ON {SAME} SET flags.release_ordinal = counted.n")  # noqa: S608 (our names)
    else:
        steps.execute(f"UPDATE flags SET release_ordinal = counted.n FROM {COUNTED} AS counted WHERE {SAME}")  # noqa: S608 (our names)
    steps.execute(
        "INSERT INTO events (number, n, at, act, who, queue, account_id, run_id, state) "
        "SELECT SUM(n) OVER (ORDER BY released_at, run_id), n, ROUND(released_at * 1000000), "
        "'released', lease_owner, queue, NULL, run_id, '' "
        "FROM (SELECT runs.run_id, runs.released_at, runs.lease_owner, MIN(flags.queue) AS queue, COUNT(*) AS n FROM runs "
        "JOIN flags ON flags.run_id = runs.run_id WHERE runs.released_at IS NOT NULL "
        "GROUP BY runs.run_id, runs.released_at, runs.lease_owner) AS released",
        unless="EXISTS (SELECT 1 FROM events)",
    )
    steps.view(
        "review_queue",
        "SELECT flags.*, runs.released_at FROM flags JOIN runs ON runs.run_id = flags.run_id "
        "WHERE runs.released_at IS NOT NULL AND flags.open_marker = 1 "
        "AND (runs.undo_begun_at IS NULL OR flags.state <> 'open')",
    )


def _of_flag(held: sa.types.TypeEngine[Any]) -> tuple[sa.Column[Any], ...]:
    """The key of a flag."""
    return (
        sa.Column("queue", sa.String(64), primary_key=True),
        sa.Column("account_id", held, primary_key=True, autoincrement=False),
        sa.Column("run_id", sa.String(40), primary_key=True),
    )
