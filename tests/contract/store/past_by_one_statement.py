"""The reference for `store.past`: what a queue remembers, asked of the database by one statement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from batchscore.flag import DECIDED, TOUCHED, FlagState
from batchscore.ports import RunRow
from batchscore.store.past import same_flag, towards_abuse
from batchscore.store.rows import account_id_of, from_microseconds, microseconds
from batchscore.store.tables import counts_as_evidence, dispositions_table, flags_table, runs
from tests.dba import dba_engine
from tests.past_flags import PastFlag

_flags = flags_table("raw")
_decided = dispositions_table("raw")
_seen = _flags.alias("seen")


def past_by_one_statement(folder: Path, queue: str, but_not_of: RunRow) -> list[PastFlag]:
    """Every flag of the queue, by account id then opened_at."""
    with dba_engine(folder).begin() as connection:
        return [_past_flag(row) for row in connection.execute(_query(queue, but_not_of))]


def _past_flag(row: Any) -> PastFlag:
    return PastFlag(
        account_id=account_id_of(row.account_id),
        opened_at=from_microseconds(row.opened_at),
        closed_at=None if row.closed_at is None else from_microseconds(row.closed_at),
        run_id=row.run_id,
        as_of=from_microseconds(row.as_of),
        state=FlagState(row.state),
        score=row.score,
        reason_codes=tuple(towards_abuse(row.reasons)) if row.state in DECIDED else (),
        decided_at=None if row.decided_at is None else from_microseconds(row.decided_at),
        margin=row.margin,
        second_reviewer=bool(row.second_reviewer),
    )


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
