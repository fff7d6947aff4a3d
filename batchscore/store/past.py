"""What a queue remembers of earlier flags, for decide: each with what a person made of it, and the evidence they saw."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from batchscore.flag import TOUCHED, FlagState
from batchscore.ports import PastFlag, RunRow
from batchscore.store.rows import account_id_of, from_microseconds, microseconds
from batchscore.store.tables import dispositions_table, flags_table, runs

PAGE = 10_000  # flags; tests make it smaller

_flags = flags_table("raw")
_decided = dispositions_table("raw")
_seen = _flags.alias("seen")  # the evidence that a decision speaks of

Rows = Callable[[sa.Select[Any]], Sequence[sa.RowMapping]]


def past_flags(rows_of: Rows, queue: str, but_not_of: RunRow) -> Iterator[PastFlag]:
    """Every flag of the queue that a released run opened and no undo withdraws, by account id then opened_at.

    Not those of ``but_not_of``, nor of other runs of its spec for its last as-of. A page of accounts at a time, so that a caller
    may take its time.
    """
    query = _query(queue, but_not_of)
    page: sa.Select[Any] | None = query
    while page is not None:
        rows = rows_of(page.limit(PAGE))
        page = None
        if len(rows) == PAGE:  # the last account's flags may go on: they come whole, and the next page after them
            last = rows[-1]["account_id"]
            rows = [row for row in rows if row["account_id"] != last] + [*rows_of(query.where(_flags.c.account_id == last))]
            page = query.where(_flags.c.account_id > last)
        yield from map(_past_flag, rows)


def _query(queue: str, but_not_of: RunRow) -> sa.Select[Any]:
    as_of = microseconds(but_not_of.plan.spec.as_ofs()[-1])
    same_question = (runs.c.name == but_not_of.name) & (_flags.c.as_of == as_of)
    later, theirs, last = _decided.alias("later"), runs.alias("theirs"), _flags.alias("evidence")
    newest = sa.select(sa.func.max(later.c.number)).where(same_flag(later, _flags)).scalar_subquery()
    n_evidence = (
        sa.select(sa.func.count())
        .select_from(last.join(theirs, theirs.c.run_id == last.c.run_id))
        .where(last.c.queue == _flags.c.queue, last.c.account_id == _flags.c.account_id)
        .where(last.c.overtaken_by == _flags.c.run_id, theirs.c.released_at.is_not(None), theirs.c.undo_begun_at.is_(None))
        .scalar_subquery()
    )
    seen = (
        (_seen.c.queue == _flags.c.queue)
        & (_seen.c.account_id == _flags.c.account_id)
        & (_seen.c.run_id == sa.func.coalesce(_decided.c.evidence_run, _flags.c.run_id))
    )
    return (
        sa.select(
            *(_flags.c.account_id, _flags.c.opened_at, _flags.c.closed_at, _flags.c.state, _decided.c.decided_at),
            *(_seen.c.run_id, _seen.c.as_of, _seen.c.score, _seen.c.reasons, n_evidence.label("n_evidence")),
        )
        .select_from(
            _flags.join(runs, runs.c.run_id == _flags.c.run_id)
            .outerjoin(_decided, same_flag(_decided, _flags) & (_decided.c.number == newest))
            .join(_seen, seen)
        )
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


def same_flag(one: sa.FromClause, other: sa.FromClause) -> sa.ColumnElement[bool]:
    """Whether rows of two tables are of one flag."""
    return (one.c.queue == other.c.queue) & (one.c.account_id == other.c.account_id) & (one.c.run_id == other.c.run_id)


def _past_flag(row: sa.RowMapping) -> PastFlag:
    closed, decided = row["closed_at"], row["decided_at"]
    towards = (reason["code"] for reason in json.loads(row["reasons"]) if reason["contribution"] > 0)
    return PastFlag(
        account_id=account_id_of(row["account_id"]),
        opened_at=from_microseconds(row["opened_at"]),
        closed_at=None if closed is None else from_microseconds(closed),
        run_id=row["run_id"],
        as_of=from_microseconds(row["as_of"]),
        state=FlagState(row["state"]),
        score=row["score"],
        reason_codes=tuple(dict.fromkeys(towards)),
        decided_at=None if decided is None else from_microseconds(decided),
        n_evidence=row["n_evidence"] + 1,
    )
