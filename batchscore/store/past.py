"""What a queue remembers of earlier flags, for decide: each with what a person made of it, and the evidence they saw."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from pydantic_core import from_json

from batchscore.desk import Said
from batchscore.flag import TOUCHED, FlagState
from batchscore.ports import PastColumns, RunRow
from batchscore.store.paging import whole_accounts
from batchscore.store.rows import TuplesOf, account_id_of, from_microseconds, microseconds
from batchscore.store.tables import counts_as_evidence, dispositions_table, flags_table, runs

PAGE = 10_000  # flags; tests make it smaller

_flags = flags_table("raw")
_decided = dispositions_table("raw")
_seen = _flags.alias("seen")  # the evidence that a decision speaks of


def past_columns(tuples_of: TuplesOf, queue: str, but_not_of: RunRow) -> Iterator[PastColumns]:
    """Every flag of the queue that a released run opened and no undo withdraws, by account id then opened_at.

    Not those of ``but_not_of``, nor of other runs of its spec for its last as-of. A page of accounts at a time.
    """
    return map(_columns, whole_accounts(tuples_of, _query(queue, but_not_of), _flags.c.account_id, PAGE))


def _query(queue: str, but_not_of: RunRow) -> sa.Select[Any]:
    """A flag that stands comes with its newest evidence; one that was decided, with what the newest decision speaks of."""
    as_of = microseconds(but_not_of.plan.spec.as_ofs()[-1])
    same_question = (runs.c.name == but_not_of.name) & (_flags.c.as_of == as_of)
    later = _decided.alias("later")
    newest = sa.select(sa.func.max(later.c.number)).where(same_flag(later, _flags)).scalar_subquery()
    decided_on = sa.case((_flags.c.open_marker.is_(None), _decided.c.evidence_run))
    seen_run = sa.func.coalesce(decided_on, _newest_evidence(), _flags.c.run_id)
    seen = (_seen.c.queue == _flags.c.queue) & (_seen.c.account_id == _flags.c.account_id) & (_seen.c.run_id == seen_run)
    return (
        sa.select(
            *(_flags.c.account_id, _flags.c.opened_at, _flags.c.closed_at, _flags.c.state, _decided.c.decided_at),
            *(_seen.c.run_id, _seen.c.as_of, _seen.c.score, _seen.c.margin, _seen.c.reasons, _seen.c.second_reviewer),
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


def _newest_evidence() -> sa.ScalarSelect[Any]:
    """Of a flag that stands: the run whose evidence on it is the newest, by its as-of; null where none was added."""
    added, theirs = _flags.alias("added"), runs.alias("adding")
    return (
        sa.select(added.c.run_id)
        .select_from(added.join(theirs, theirs.c.run_id == added.c.run_id))
        .where(_flags.c.open_marker == 1, added.c.queue == _flags.c.queue, added.c.account_id == _flags.c.account_id)
        .where(added.c.overtaken_by == _flags.c.run_id, counts_as_evidence(added))
        .where(theirs.c.released_at.is_not(None), theirs.c.undo_begun_at.is_(None))
        .order_by(added.c.as_of.desc(), theirs.c.released_at.desc(), added.c.run_id.desc())
        .limit(1)
        .correlate(_flags)
        .scalar_subquery()
    )


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


def _columns(rows: Sequence[sa.Row[Any]]) -> PastColumns:
    """Rows of `_query`, at least one."""
    ids, opened, closed, states, decided, run_ids, as_ofs, scores, margins, reasons, second = zip(*rows, strict=True)
    return PastColumns(
        account_id=tuple(map(account_id_of, ids)),
        opened_at=opened,
        closed_at=closed,
        run_id=run_ids,
        as_of=as_ofs,
        state=states,
        score=scores,
        reason_codes=[tuple(towards_abuse(held)) for held in reasons],
        decided_at=decided,
        margin=margins,
        second_reviewer=tuple(map(bool, second)),
    )
