"""What a queue remembers of earlier flags, for decide: each with what a person made of it, and the evidence they saw.

Hundreds of thousands of flags are remembered before each decision, so they are read in three plain questions a page, each of
which walks one index: the flags, what was decided of them, and what was added to them. One statement with all of it looks up
four further rows for every flag, of which few have any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import sqlalchemy as sa
from pydantic_core import from_json

from batchscore.database import is_mysql
from batchscore.evidence import Said
from batchscore.flag import DECIDED, STANDING, TOUCHED, FlagState
from batchscore.ports import PastColumns, RunRow
from batchscore.store.rows import account_id_of, from_microseconds, microseconds
from batchscore.store.tables import counts_as_evidence, dispositions_table, flags_table, runs

PAGE = 10_000  # flags; tests make it smaller
_ROWS_AT_ONCE: Final = 500

_flags: Final = flags_table("raw")
_decided: Final = dispositions_table("raw")
_seen: Final = _flags.alias("seen")  # the evidence that a decision speaks of
_EVIDENCE: Final = ("run_id", "as_of", "score", "margin", "second_reviewer")

T = TypeVar("T")


class Looked(Protocol):
    """Asks a database: in a transaction of its own, again while it stumbles."""

    def __call__(self, body: Callable[[sa.Connection], T]) -> T:
        """What ``body`` gives."""


def past_columns(looked: Looked, queue: str, but_not_of: RunRow) -> Iterator[PastColumns]:
    """Every flag of the queue that a released run opened and no undo withdraws, by account id then opened_at.

    Not those of ``but_not_of``, nor of other runs of its spec for its last as-of. A page of accounts at a time, so that a caller
    may take its time; of each account all is as it was at one moment.
    """
    after: Any = None
    while True:
        found, after = looked(partial(_page, queue=queue, but_not_of=but_not_of, after=after))
        if found is not None:
            yield found
        if after is None:
            return


def _page(connection: sa.Connection, *, queue: str, but_not_of: RunRow, after: Any) -> tuple[PastColumns | None, Any]:
    """The flags of the next accounts, None where there are none; and the last of these accounts, None where no more come."""
    if is_mysql(connection):
        connection.execution_options(isolation_level="REPEATABLE READ")  # the three questions see one moment, as on SQLite
    query = _past(queue, but_not_of)
    flags = _read(connection, (query if after is None else query.where(_flags.c.account_id > after)).limit(PAGE))
    ids, last = flags[0], None
    if len(ids) == PAGE:  # the last account's flags may go on: they come whole
        last = ids[-1]
        begins = ids.index(last)
        for column, whole in zip(flags, _read(connection, query.where(_flags.c.account_id == last)), strict=True):
            column[begins:] = whole
    if not ids:
        return None, last
    decisions = _read(connection, _between(_decisions(queue), _decided.c.account_id, ids[0], ids[-1]))
    added = _read(connection, _between(_added(queue), _flags.c.account_id, ids[0], ids[-1]))
    return _columns(flags, zip(*decisions, strict=True), zip(*added, strict=True)), last


def _read(connection: sa.Connection, query: sa.Select[Any]) -> Sequence[list[Any]]:
    """Columns of what the driver gives, a few rows at a time.

    To wrap rows takes as long as to read them; and where many are held at once, Python's collector looks through them again.
    """
    cursor = connection.execute(query).cursor
    assert cursor is not None, "a query has rows"
    columns: list[list[Any]] = [[] for _ in query.selected_columns]
    while rows := cursor.fetchmany(_ROWS_AT_ONCE):
        for column, values in zip(columns, zip(*rows, strict=True), strict=True):
            column.extend(values)
    return columns


def _past(queue: str, but_not_of: RunRow) -> sa.Select[Any]:
    """The flags, each with its own evidence."""
    as_of = microseconds(but_not_of.plan.spec.as_ofs()[-1])
    same_question = (runs.c.name == but_not_of.name) & (_flags.c.as_of == as_of)
    return (
        sa.select(
            *(_flags.c.account_id, _flags.c.opened_at, _flags.c.closed_at, _flags.c.state, *(_flags.c[one] for one in _EVIDENCE)),
        )
        .select_from(_flags.join(runs, runs.c.run_id == _flags.c.run_id))
        .where(
            _flags.c.queue == queue,
            _flags.c.run_id != but_not_of.run_id,
            ~same_question,
            _flags.c.state.not_in([FlagState.OVERTAKEN.value, FlagState.WITHDRAWN.value]),
            runs.c.released_at.is_not(None),
            runs.c.undo_begun_at.is_(None) | _flags.c.state.in_(sorted(TOUCHED)),
        )
        .order_by(_flags.c.account_id, _flags.c.opened_at)
    )


def _decisions(queue: str) -> sa.Select[Any]:
    """The newest decision on each flag: account and run, when, the reasons that were seen, and the evidence."""
    later = _decided.alias("later")
    newest = sa.select(sa.func.max(later.c.number)).where(same_flag(later, _decided)).scalar_subquery()
    seen = (_seen.c.queue == _decided.c.queue) & (_seen.c.account_id == _decided.c.account_id)
    return (
        sa.select(
            *(_decided.c.account_id, _decided.c.run_id, _decided.c.decided_at, _seen.c.reasons),
            *(_seen.c[one] for one in _EVIDENCE),
        )
        .select_from(_decided.join(_seen, seen & (_seen.c.run_id == _decided.c.evidence_run)))
        .where(_decided.c.queue == queue, _decided.c.number == newest)
    )


def _added(queue: str) -> sa.Select[Any]:
    """What runs added to flags: the account and the flag's run, and the evidence; of each flag the newest, by its as-of, last."""
    return (
        sa.select(_flags.c.account_id, _flags.c.overtaken_by, *(_flags.c[one] for one in _EVIDENCE))
        .select_from(_flags.join(runs, runs.c.run_id == _flags.c.run_id))
        .where(_flags.c.queue == queue, _flags.c.overtaken_by.is_not(None), counts_as_evidence(_flags))
        .where(runs.c.released_at.is_not(None), runs.c.undo_begun_at.is_(None))
        .order_by(_flags.c.as_of, runs.c.released_at, _flags.c.run_id)
    )


def _between(query: sa.Select[Any], column: sa.ColumnElement[Any], first: Any, last: Any) -> sa.Select[Any]:
    return query.where(column >= first, column <= last)


def towards_abuse(reasons: str) -> Iterable[str]:
    """The codes of the reasons towards abuse, strongest first, each once, of reasons as the table holds them."""
    return dict.fromkeys([reason["code"] for reason in from_json(reasons, cache_strings="keys") if reason["contribution"] > 0])


def newness(as_of: Any, released_at: float | None, run_id: str) -> tuple[Any, ...]:
    """By what evidence on one flag is ordered, oldest first: its as-of, then its release, which may be yet to come."""
    return as_of, released_at or float("inf"), run_id


def said_by(connection: sa.Connection, queue: str, rows: Sequence[sa.Row[Any]]) -> dict[tuple[Any, str], Said]:
    """(Account, run) → what that flag says as evidence. ``rows``: of the queue's, all but the reasons, which are long."""
    if not rows:
        return {}
    ids, run_ids = {row.account_id for row in rows}, {row.run_id for row in rows}
    query = sa.select(_flags.c.account_id, _flags.c.run_id, _flags.c.reasons)
    texts = connection.execute(query.where(_flags.c.queue == queue, _flags.c.account_id.in_(ids), _flags.c.run_id.in_(run_ids)))
    reasons = {(row.account_id, row.run_id): row.reasons for row in texts}
    return {
        (row.account_id, row.run_id): Said(
            as_of=from_microseconds(row.as_of),
            score=row.score,
            codes=frozenset(towards_abuse(reasons[row.account_id, row.run_id])),
            second_reviewer=bool(row.second_reviewer),
        )
        for row in rows
    }


def same_flag(one: sa.FromClause, other: sa.FromClause) -> sa.ColumnElement[bool]:
    """Whether rows of two tables are of one flag."""
    return (one.c.queue == other.c.queue) & (one.c.account_id == other.c.account_id) & (one.c.run_id == other.c.run_id)


def _columns(flags: Sequence[list[Any]], decisions: Iterable[Sequence[Any]], added: Iterable[Sequence[Any]]) -> PastColumns:
    """Columns of `_past`, of at least one flag, with rows of `_decisions` and `_added` on them.

    A flag that was decided comes with what the newest decision speaks of, and one that stands with its newest evidence.
    """
    ids, opened, closed, states, *seen = flags
    own_runs = list(seen[0])
    codes: list[tuple[str, ...]] = [()] * len(ids)
    decided: list[int | None] = [None] * len(ids)
    last: dict[Any, int] = dict(zip(ids, range(len(ids)), strict=True))  # of an account's flags, which stand together

    def place_of(account: Any, run: str) -> int | None:
        place = last.get(account, -1)
        while place >= 0 and ids[place] == account:
            if own_runs[place] == run:
                return place
            place -= 1
        return None

    for account, run, decided_at, reasons, *of_it in decisions:
        place = place_of(account, run)
        if place is None:
            continue
        decided[place] = decided_at
        if states[place] not in STANDING:
            _put(seen, place, of_it)
        if states[place] in DECIDED:
            codes[place] = tuple(towards_abuse(reasons))
    for account, run, *of_it in added:
        place = place_of(account, run)
        if place is not None and states[place] in STANDING:
            _put(seen, place, of_it)
    run_ids, as_ofs, scores, margins, second = seen
    return PastColumns(
        account_id=ids if isinstance(ids[0], int) else [account_id_of(one) for one in ids],
        opened_at=opened,
        closed_at=closed,
        run_id=run_ids,
        as_of=as_ofs,
        state=states,
        score=scores,
        reason_codes=codes,
        decided_at=decided,
        margin=margins,
        second_reviewer=[*map(bool, second)],
    )


def _put(columns: Sequence[list[Any]], place: int, row: Sequence[Any]) -> None:
    for column, value in zip(columns, row, strict=True):
        column[place] = value
