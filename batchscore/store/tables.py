"""The tables of a store, for queries. The migrations make them; a test compares the two.

``*_at`` columns are seconds since 1970 in UTC by the database's clock (float64), except ``as_of`` and the times of flags, claims,
decisions, suppressions, events and the trail, which are microseconds (integers), because they are compared for equality. Every
key is natural: what is written twice is found, not added. On MySQL all tables are InnoDB and text is compared by its bytes.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from batchscore.flag import GROUP_CHARS, SINCE_CHARS
from batchscore.settings import STRING_ID_BYTES

metadata = sa.MetaData()
LONG: Final = sa.Text().with_variant(mysql.LONGTEXT(), "mysql")  # MySQL's TEXT ends at 64 KB
INTEGER_ID: Final = sa.BigInteger().with_variant(mysql.BIGINT(unsigned=True), "mysql")
STRING_ID: Final = sa.LargeBinary(STRING_ID_BYTES).with_variant(mysql.VARBINARY(STRING_ID_BYTES), "mysql")

# One row: what was fixed when the store was made.
installation: Final = sa.Table("installation", metadata, sa.Column("id_kind", sa.String(16), primary_key=True))

runs: Final = sa.Table(
    "runs",
    metadata,
    sa.Column("run_id", sa.String(40), primary_key=True),
    sa.Column("plan_digest", sa.String(64), nullable=False, index=True),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("plan", LONG, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("why", LONG, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("lease_owner", sa.String(255), nullable=False),
    sa.Column("lease_until", sa.Double, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False, index=True),
    sa.Column("updated_at", sa.Double, nullable=False),
    sa.Column("finished_at", sa.Double),
    sa.Column("decision_path", LONG),
    sa.Column("decision_sha256", sa.String(64)),
    sa.Column("memory_path", LONG),
    sa.Column("memory_sha256", sa.String(64)),
    sa.Column("released_at", sa.Double),
    sa.Column("executor", sa.String(255), nullable=False, server_default=""),
    sa.Column("held_back_s", sa.Double, nullable=False, server_default="0"),
    sa.Column("worst_lag_s", sa.Double),
    # By when it is to be over, when its driver last expected it to be, and since when that is too late.
    sa.Column("deadline_at", sa.Double),
    sa.Column("expected_at", sa.Double),
    sa.Column("late_since", sa.Double),
    # Which of its driver's transactions was the last to stand: asked after a COMMIT without an answer.
    sa.Column("last_write", sa.String(32), nullable=False, server_default=""),
    # From the first of these on, reviewers see none of the run's flags that no person touched; the second ends the undo.
    sa.Column("undo_begun_at", sa.Double),
    sa.Column("undone_at", sa.Double),
    sa.Column("undone_by", sa.String(255)),
    sa.Column("undone_why", LONG),
    # People's part of the row (`batchscore.request`), compared and set by its number; only the last two are the driver's.
    sa.Column("requested_state", sa.String(16), nullable=False, server_default=""),
    sa.Column("request_number", sa.Integer, nullable=False, server_default="0"),
    sa.Column("requested_by", sa.String(255)),
    sa.Column("requested_why", LONG),
    sa.Column("requested_at", sa.Double),
    sa.Column("request_seen_at", sa.Double),
    sa.Column("request_met_at", sa.Double),
)

# The sweeps of each spec, by name. How far a spec has come (its watermark) follows from the runs of these plans.
sweeps: Final = sa.Table(
    "sweeps",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("as_of", sa.BigInteger, primary_key=True),
    sa.Column("plan_digest", sa.String(64), primary_key=True, index=True),
    sa.Column("begun_at", sa.Double, nullable=False),
)

# What a guard held a run for, and who approved it. A hold is named by the digest of its findings: it is approved as it was seen.
holds: Final = sa.Table(
    "holds",
    metadata,
    sa.Column("run_id", sa.ForeignKey("runs.run_id"), primary_key=True),
    sa.Column("subject", sa.String(16), primary_key=True),
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("findings", LONG, nullable=False),
    sa.Column("held_at", sa.Double, nullable=False),  # the last time: a run that is resumed unapproved is held again
    sa.Column("approved_by", sa.String(255)),
    sa.Column("approved_because", LONG),
    sa.Column("approved_at", sa.Double),
)

# Other versions of libraries than a run's plan pins, and who accepted them. ``from_epoch``: of the first driver that went on with
# one, so attempts from then on are of no single world, and no other run takes their outputs; null: the run was planned with it.
acceptances: Final = sa.Table(
    "acceptances",
    metadata,
    sa.Column("run_id", sa.ForeignKey("runs.run_id"), primary_key=True),
    sa.Column("part", sa.String(128), primary_key=True),
    sa.Column("became", sa.String(128), primary_key=True),
    sa.Column("was", sa.String(128), nullable=False),
    sa.Column("accepted_by", sa.String(255), nullable=False),
    sa.Column("accepted_at", sa.Double, nullable=False),
    sa.Column("from_epoch", sa.Integer),
)

stages: Final = sa.Table(
    "stages",
    metadata,
    sa.Column("run_id", sa.ForeignKey("runs.run_id"), primary_key=True),
    sa.Column("stage", sa.String(16), primary_key=True),
    sa.Column("layout_digest", sa.String(64), nullable=False),
    sa.Column("laid_out_at", sa.Double, nullable=False),
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
    sa.Column("message", LONG, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("updated_at", sa.Double, nullable=False),
    sa.Column("work", LONG, nullable=False),
    sa.Column("receipt", LONG),
    sa.Index("partitions_by_address", "address", "state"),
)

attempts: Final = sa.Table(
    "attempts",
    metadata,
    sa.Column("run_id", sa.ForeignKey("runs.run_id"), primary_key=True),
    sa.Column("stage", sa.String(16), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("ordinal", sa.Integer, primary_key=True),  # the first that went wrong at this partition is 1
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("reason", sa.String(64), nullable=False),
    sa.Column("message", LONG, nullable=False),
    sa.Column("isolated", sa.Boolean, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("ended_at", sa.Double, nullable=False),
)

outputs: Final = sa.Table(
    "outputs",
    metadata,
    sa.Column("path", sa.String(255), primary_key=True),
    sa.Column("address", sa.String(128), nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("n_bytes", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
)

run_outputs: Final = sa.Table(
    "run_outputs",
    metadata,
    sa.Column("run_id", sa.ForeignKey("runs.run_id"), primary_key=True),
    sa.Column("path", sa.ForeignKey("outputs.path"), primary_key=True, index=True),
)

# A row for each queue that flags were released into: the lock that keeps two releases into one queue apart.
queues: Final = sa.Table("queues", metadata, sa.Column("queue", sa.String(64), primary_key=True))

# Who did what to the queue (`batchscore.audit`); ``digest`` chains an entry to the one before.
audit: Final = sa.Table(
    "audit",
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("act", sa.String(32), nullable=False),
    sa.Column("who", sa.String(255), nullable=False),
    sa.Column("run_id", sa.String(40), nullable=False, index=True),
    sa.Column("account", sa.String(64), nullable=False),
    sa.Column("detail", LONG, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
)

# One row: the newest entry, and the lock under which the next one follows it.
audit_head: Final = sa.Table(
    "audit_head",
    metadata,
    sa.Column("chain", sa.String(16), primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
)


# Accounts that are scored and not flagged, for a while. ``subject``: an account id as text, a domain, a segment's value.
suppressions: Final = sa.Table(
    "suppressions",
    metadata,
    sa.Column("queue", sa.String(64), primary_key=True),
    sa.Column("scope", sa.String(16), primary_key=True),
    sa.Column("subject", STRING_ID, primary_key=True),
    sa.Column("begins_at", sa.BigInteger, primary_key=True),
    sa.Column("until", sa.BigInteger, nullable=False),  # one that is removed ends then
    sa.Column("owner", sa.String(255), nullable=False),
    sa.Column("why", LONG, nullable=False),
    sa.Column("removed_by", sa.String(255)),
)

# Tables that hold account ids of the store's kind; the functions below make them for queries.
WITH_IDS: Final = ("flags", "claims", "dispositions", "events")
# What people own: a driver reads these and has no right to write them.
PEOPLES: Final = ("claims", "dispositions", "suppressions")


def _held(id_kind: str) -> sa.types.TypeEngine[Any]:
    """The type of a column of ids: exact integers, or the bytes of the text, which no collation folds; ``raw`` takes either."""
    kinds: dict[str, sa.types.TypeEngine[Any]] = {"integer": INTEGER_ID, "string": STRING_ID, "raw": sa.types.NullType()}
    return kinds[id_kind]


def flags_table(id_kind: str) -> sa.Table:
    """The flags. ``id_kind``: integer, string, or raw for queries that pass ids as the column holds them.

    ``open_marker`` is 1 while the flag stands (open, claimed, awaiting) and null otherwise: unique with queue and account, it
    lets the database itself hold at most one for each. ``overtaken_by`` is the run whose flag an overtaken one is evidence on.
    ``released_as`` is what its release made of it (`flag.ReleasedAs`), for ever; ``turns`` counts how often undos turned it
    since, between evidence and unmoved, the last at ``turned_at``. ``release_ordinal`` counts a run's flags from 1: its flags
    in the order of keys, then what it adds to others, then what more of it is released; the event of a release numbers them so.
    """
    return sa.Table(
        "flags",
        sa.MetaData(),
        sa.Column("queue", sa.String(64), primary_key=True),
        sa.Column("account_id", _held(id_kind), primary_key=True),
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
        sa.Column("overtaken_by", sa.String(40)),
        sa.Column("released_as", sa.String(16), nullable=False, server_default="opened"),
        sa.Column("release_ordinal", sa.Integer, nullable=False, server_default="0"),
        sa.Column("group_key", sa.String(GROUP_CHARS), nullable=False, server_default=""),
        sa.Column("since", sa.String(SINCE_CHARS), nullable=False, server_default=""),
        sa.Column("second_reviewer", sa.Boolean, nullable=False, server_default="0"),
        sa.Column("turns", sa.Integer, nullable=False, server_default="0"),
        sa.Column("turned_at", sa.BigInteger),
        sa.UniqueConstraint("queue", "account_id", "open_marker", name="one_open_flag"),
        sa.Index("flags_by_run", "run_id", "release_ordinal"),
        sa.Index("flags_before_reviewers", "queue", "open_marker", sa.text("as_of DESC"), "rank", "run_id"),
    )


def counts_as_evidence(flags: sa.FromClause) -> sa.ColumnElement[bool]:
    """Whether a flag that gave way is evidence on the one that stands, by now: as it was released, or turned since."""
    came_so = sa.case((flags.c.released_as == "evidence", 1), else_=0)
    return came_so != flags.c.turns.bitwise_and(1)


def claims_table(id_kind: str) -> sa.Table:
    """Who is at which flag: one row for each that was ever claimed, ``ended_at`` null while the claim is alive. People's."""
    return sa.Table(
        "claims",
        sa.MetaData(),
        sa.Column("queue", sa.String(64), primary_key=True),
        sa.Column("account_id", _held(id_kind), primary_key=True),
        sa.Column("run_id", sa.String(40), primary_key=True),
        sa.Column("reviewer", sa.String(255), nullable=False),
        sa.Column("claimed_at", sa.BigInteger, nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger),
        sa.Index("claims_by_end", "queue", "ended_at", "until"),
    )


def dispositions_table(id_kind: str) -> sa.Table:
    """What people decided of a flag, each decision a row that is only ever added; ``number`` from 1. People's.

    ``state`` is what the flag became by it; ``evidence`` the version that the person saw, ``evidence_run`` its newest run.
    """
    return sa.Table(
        "dispositions",
        sa.MetaData(),
        sa.Column("queue", sa.String(64), primary_key=True),
        sa.Column("account_id", _held(id_kind), primary_key=True),
        sa.Column("run_id", sa.String(40), primary_key=True),
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


def events_table(id_kind: str) -> sa.Table:
    """The outbox: one row for each change of a flag, numbered without a gap in the order of commits.

    A release is one row for all its flags: it has the numbers from ``number - n + 1`` to ``number``, a flag each by its ordinal.
    """
    return sa.Table(
        "events",
        sa.MetaData(),
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("n", sa.BigInteger, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("act", sa.String(16), nullable=False),
        sa.Column("who", sa.String(255), nullable=False),
        sa.Column("queue", sa.String(64), nullable=False),
        sa.Column("account_id", _held(id_kind)),
        sa.Column("run_id", sa.String(40), nullable=False, index=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Index("events_by_account", "queue", "account_id"),
    )
