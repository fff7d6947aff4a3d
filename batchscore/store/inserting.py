"""A statement's worth of a run's flags goes into the queue's table: what each meets there, and the rows that say so.

An account has one flag that stands in a queue. Ours opens where none does; else it is evidence on the one that stands, or
changes nothing: a person has decided on evidence as new, or since the run read its memory; or the newest says as much already,
or is of a later as-of. Ours is kept back where a suppression holds by now. What adds
to a flag that stood when its run decided (``adding``) took no place of the budget, and so opens none: where that flag has left
the queue meanwhile by a decision or by its age, ours changes nothing; where it was withdrawn, it is as if it had never been.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from batchscore.database import is_mysql
from batchscore.driver import is_gone
from batchscore.evidence import Said, says_more
from batchscore.failpoints import Point, reach
from batchscore.flag import DECIDED, AnyFlag, FlagState, ReleasedAs
from batchscore.policy import MoreEvidence
from batchscore.ports import MemoryRead, RunHandle
from batchscore.store.audit import AuditTrail
from batchscore.store.kept_back import DecidedOn, decided_since, suppressed_among
from batchscore.store.past import newness, said_by
from batchscore.store.rows import FLAGS_OWN, FlagOwn, FlagsShare, flag_own, flags_share, microseconds, stored_id
from batchscore.store.tables import counts_as_evidence, flags_table, runs

STATEMENT_BYTES: Final = 1_000_000  # below the smallest max_allowed_packet that anybody sets, 1 MiB
ROW_BYTES: Final = 1_024  # of all but the reasons, at most: an id of 255 bytes, each of them escaped, and some 300 of the rest
MOST_BYTES_A_CHARACTER: Final = 4  # in UTF-8; a quote in JSON is escaped, and takes two

_flags: Final = flags_table("raw")
_GONE: Final = frozenset({FlagState.OVERTAKEN, FlagState.WITHDRAWN})


@dataclass(frozen=True, kw_only=True)
class ReviewDatabase:
    """What of the database a release must know: its clock, the largest integer its ids may be, and its audit trail."""

    now: sa.ColumnElement[Any]
    largest_id: int
    trail: AuditTrail


@dataclass(frozen=True, kw_only=True, slots=True)
class Insertion:
    """How flags of a run are inserted: when (microseconds), what of them is evidence (``least``), and whether they only add.

    ``since``: when the run read its memory; what a person decided since, it did not see.
    """

    run: RunHandle
    database: ReviewDatabase
    opened_at: int
    least: MoreEvidence
    adding: bool = False
    since: MemoryRead | None = None

    def insert(self, connection: sa.Connection, flags: Sequence[AnyFlag]) -> None:
        """Insert flags of one queue and as-of; the run's own that are there stay as they are. Needs the queue's lock."""
        ids = [stored_id(flag.account_id, self.database.largest_id) for flag in flags]
        there: defaultdict[Any, list[Any]] = defaultdict(list)
        for row in connection.execute(_there(flags[0].queue, ids, self.database.now)):
            there[row.account_id].append(row)
        ours = {account_id for account_id, rows in there.items() if any(row.run_id == self.run.run_id for row in rows)}
        new = [(account_id, flag) for account_id, flag in zip(ids, flags, strict=True) if account_id not in ours]
        if not new:
            return
        comes_as = self._comes_as(connection, flags[0].queue, dict(new), there)
        opens = _ComesAs(None, ReleasedAs.INSTEAD if self.adding else ReleasedAs.OPENED)
        rows_of: dict[FlagsShare, list[FlagOwn]] = {}
        for ordinal, (account_id, flag) in enumerate(new, start=next_ordinal(connection, self.run)):
            winner, released_as = comes_as.get(account_id, opens)
            shared = FlagsShare(winner, released_as, flag.bundle_digest, flag.second_reviewer)
            rows_of.setdefault(shared, []).append(flag_own(flag, account_id, ordinal))
        for shared, rows in rows_of.items():
            columns = flags_share(flags[0], self.opened_at, shared)
            for part in bounded(rows):
                values = tuple(value for row in part for value in row)
                connection.exec_driver_sql(_insertion(connection, columns, len(part)), values)
                reach(Point.FLAGS_INSERTING)

    def _comes_as(
        self, connection: sa.Connection, queue: str, new: Mapping[Any, AnyFlag], there: Mapping[Any, Sequence[Any]]
    ) -> dict[Any, _ComesAs]:
        """Account → what ours is released as there, of those that do not open. ``there``: every flag of each account."""
        suppressed = suppressed_among(connection, self.database.now, queue, new)
        free = {account_id: rows for account_id, rows in there.items() if account_id in new and account_id not in suppressed}
        since = decided_since(connection, queue, list(free), self.since)
        asked = ((account_id, self._meet(connection, new[account_id], rows, since)) for account_id, rows in free.items())
        met = {account_id: found for account_id, found in asked if found is not None}
        adds = {account_id: found for account_id, found in met.items() if found.released_as is ReleasedAs.EVIDENCE}
        said = said_by(connection, queue, [found.newest for found in adds.values()])
        comes_as = dict.fromkeys(suppressed, _ComesAs(None, ReleasedAs.SUPPRESSED))
        comes_as |= {account_id: _ComesAs(found.run_id, found.released_as) for account_id, found in met.items()}
        for account_id, found in adds.items():
            if not says_more(Said.by(new[account_id]), said[account_id, found.newest.run_id], self.least):
                comes_as[account_id] = _ComesAs(found.run_id, ReleasedAs.UNMOVED)
        return comes_as

    def _meet(self, connection: sa.Connection, flag: AnyFlag, rows: Sequence[Any], since: DecidedOn) -> _Met | None:
        """What one account's flag meets; None: nothing, it opens."""
        as_of = microseconds(flag.as_of)
        flags = [row for row in rows if row.run_id != self.run.run_id and row.state not in _GONE]
        stands = next((row for row in flags if row.open_marker == 1), None)
        if stands is not None and not _is_seen_or_driven(stands):
            theirs = said_by(connection, flag.queue, [stands])[stands.account_id, stands.run_id]
            as_evidence = ReleasedAs.EVIDENCE if says_more(theirs, Said.by(flag), self.least) else ReleasedAs.UNMOVED
            account = (_flags.c.queue == flag.queue) & (_flags.c.account_id == stands.account_id)
            _give_way(connection, account, stands.run_id, self, as_evidence)
            flags, stands = [row for row in flags if row is not stands], None
        if stands is not None:
            return _Met(stands.run_id, ReleasedAs.EVIDENCE, _newest_on(stands, rows))
        for row in sorted(flags, key=lambda row: (row.opened_at, row.run_id), reverse=True):
            if row.as_of == as_of or (row.as_of > as_of and row.state in DECIDED):
                decided = row.state in DECIDED
                return _Met(row.run_id, ReleasedAs.KEPT if decided else ReleasedAs.EVIDENCE, _newest_on(row, rows))
            if row.state in DECIDED and (row.account_id, row.run_id) in since:
                return _Met(row.run_id, ReleasedAs.KEPT, row)
            if self.adding:
                return _Met(row.run_id, ReleasedAs.KEPT if row.state in DECIDED else ReleasedAs.UNMOVED, row)
        return None


class _ComesAs(NamedTuple):
    """What ours is released as, and the run to whose flag it gives way; None: it opens, or is suppressed."""

    overtaken_by: str | None
    released_as: ReleasedAs


class _Met(NamedTuple):
    """The run whose flag is in ours' way, what ours is to it, and the row of its newest evidence."""

    run_id: str
    released_as: ReleasedAs
    newest: Any


def _newest_on(flag: Any, rows: Iterable[Any]) -> Any:
    """The row of the newest evidence on a flag: its own, or one of a run that no undo takes back, nor stopped unseen."""
    added = [
        row
        for row in rows
        if row.overtaken_by == flag.run_id and row.counts and row.undo_begun_at is None
        if _is_seen_or_driven(row)
    ]
    return max([flag, *added], key=lambda row: newness(row.as_of, row.released_at, row.run_id))


def _is_seen_or_driven(row: Any) -> bool:
    """Whether reviewers see the row's run, or soon will: it is released, or a driver is at it and not known to be gone."""
    return row.released_at is not None or bool(row.driven and not is_gone(row.lease_owner))


def _there(queue: str, ids: Sequence[Any], now: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Every flag of those accounts in the queue, and how its run stands."""
    driven = (runs.c.state == "running") & (runs.c.lease_until >= now)
    return (
        sa.select(
            *(_flags.c.account_id, _flags.c.run_id, _flags.c.open_marker, _flags.c.as_of, _flags.c.state, _flags.c.opened_at),
            *(_flags.c.overtaken_by, counts_as_evidence(_flags).label("counts"), _flags.c.score, _flags.c.second_reviewer),
            *(runs.c.released_at, runs.c.undo_begun_at, runs.c.lease_owner, driven.label("driven")),
        )
        .select_from(_flags.outerjoin(runs, runs.c.run_id == _flags.c.run_id))
        .where(_flags.c.queue == queue, _flags.c.account_id.in_(ids))
    )


def _give_way(
    connection: sa.Connection, account: sa.ColumnElement[bool], unseen: str, winner: Insertion, released_as: ReleasedAs
) -> None:
    """The flag of a run that stopped inside its release, and what had given way to it, give way to the winner's."""
    by, at = winner.run.run_id, winner.opened_at
    connection.execute(_flags.update().where(account & (_flags.c.overtaken_by == unseen)).values(overtaken_by=by))
    overtaken = {"state": FlagState.OVERTAKEN.value, "open_marker": None, "closed_at": at, "overtaken_by": by}
    own = account & (_flags.c.run_id == unseen)
    connection.execute(_flags.update().where(own).values(**overtaken, released_as=released_as.value))


def next_ordinal(connection: sa.Connection, run: RunHandle) -> int:
    """Where the run's numbering of its flags goes on; its largest is the first of an index."""
    largest = sa.select(sa.func.max(_flags.c.release_ordinal)).where(_flags.c.run_id == run.run_id)
    return (connection.execute(largest).scalar() or 0) + 1


def _insertion(connection: sa.Connection, shared: Mapping[str, str | int | None], n_rows: int) -> str:
    """The INSERT of so many flags, with what they share written out: a driver's work grows with its values (measured)."""
    quoted = connection.dialect.identifier_preparer.quote
    names = ", ".join(quoted(name) for name in (*shared, *FLAGS_OWN))
    own = ["%s" if is_mysql(connection) else "?"] * len(FLAGS_OWN)
    row = ", ".join([*_literals(connection.dialect, tuple(shared.values())), *own])
    rows = ", ".join([f"({row})"] * n_rows)
    return f"INSERT INTO flags ({names}) VALUES {rows}"  # noqa: S608 (our own names; values as literals of the dialect)


@lru_cache(maxsize=64)
def _literals(dialect: sa.Dialect, values: tuple[str | int | None, ...]) -> tuple[str, ...]:
    """Values as the dialect writes them; kept, since most statements of a release share all of them."""
    return tuple(str(sa.literal(value).compile(dialect=dialect, compile_kwargs={"literal_binds": True})) for value in values)


def bounded(rows: list[FlagOwn]) -> Iterator[list[FlagOwn]]:
    """Rows together up to what a server takes at once, however long their reasons are."""
    part: list[FlagOwn] = []
    n_bytes = 0
    for row in rows:
        size = ROW_BYTES + MOST_BYTES_A_CHARACTER * row.n_chars
        if part and n_bytes + size > STATEMENT_BYTES:
            yield part
            part, n_bytes = [], 0
        part.append(row)
        n_bytes += size
    if part:
        yield part
