"""What evidence on a flag says once other evidence is gone: each is held anew against what came before it, as at its release.

A run that said no more than the newest evidence was kept as `unmoved`. Undo that newest, and the run may say something new; or
what was new beside it is so no more. So a flag shows what the runs that are left would have made of it. ``released_as`` stays
what the release made of a row, since the outbox tells it: a row that is seen is *turned*, and counts how often.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from batchscore.evidence import Said, says_more
from batchscore.flag import FlagState, ReleasedAs
from batchscore.policy import MoreEvidence
from batchscore.store.past import newness, said_by
from batchscore.store.tables import counts_as_evidence, flags_table, runs

_flags: Final = flags_table("raw")
_TURNED: Final = (ReleasedAs.EVIDENCE.value, ReleasedAs.UNMOVED.value)


class Turn(NamedTuple):
    """A run's evidence becomes the other of the two; ``seen``: the run is released, so people may know of it."""

    run_id: str
    becomes: ReleasedAs
    seen: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Voice:
    """What one run says of an account. ``counts``: it is evidence by now. ``least``: what it must say more, by its policy."""

    run_id: str
    said: Said
    counts: bool
    least: MoreEvidence
    released_at: float | None


def turned(first: Voice, later: Sequence[Voice]) -> tuple[Turn, ...]:
    """Which of ``later`` (in the order of coming) change sides, held against ``first`` and what was new before them.

    What is of a run that is not released is turned too, for when it is; but nobody sees it, so nothing is held against it.
    """
    standing = [first]
    found: list[Turn] = []
    for one in later:
        newest = max(standing, key=lambda voice: newness(voice.said.as_of, voice.released_at, voice.run_id))
        counts = says_more(one.said, newest.said, one.least)
        if counts != one.counts:
            becomes = ReleasedAs.EVIDENCE if counts else ReleasedAs.UNMOVED
            found.append(Turn(one.run_id, becomes, one.released_at is not None))
        if counts and one.released_at is not None:
            standing.append(one)
    return tuple(found)


def turns_at(connection: sa.Connection, queue: str, gone: str, stands: Mapping[Any, str]) -> dict[Any, tuple[Turn, ...]]:
    """Account → what turns there once the run ``gone`` says nothing any more. Needs the queue's lock to be of use.

    ``stands``: account → the run whose flag stands there then; others have given way to it, or, as rows still say, to ``gone``.
    """
    found = _rows(connection, queue, gone, stands) if stands else {}
    there = {one: rows for one, rows in found.items() if len(rows) > 1}
    if not there:
        return {}
    said = said_by(connection, queue, [row for rows in there.values() for row in rows])
    least = _least(connection, {row.run_id for rows in there.values() for row in rows})
    turns: dict[Any, tuple[Turn, ...]] = {}
    for account_id, rows in there.items():
        voices = {row.run_id: _voice(row, said[account_id, row.run_id], least[row.run_id]) for row in rows}
        first = voices.pop(stands[account_id])
        if turn := turned(first, [*voices.values()]):
            turns[account_id] = turn
    return turns


def take_turns(connection: sa.Connection, queue: str, turns: Mapping[Any, Sequence[Turn]], at: int) -> None:
    """Write down what turns at each account, at that moment."""
    turning: defaultdict[Turn, list[Any]] = defaultdict(list)
    for account_id, of_account in turns.items():
        for turn in of_account:
            turning[turn].append(account_id)
    for turn, ids in sorted(turning.items()):
        where = (_flags.c.queue == queue) & _flags.c.account_id.in_(ids) & (_flags.c.run_id == turn.run_id)
        if turn.seen:
            connection.execute(_flags.update().where(where).values(turns=_flags.c.turns + 1, turned_at=at))
        else:  # its release is still to come, and will say what it is
            connection.execute(_flags.update().where(where).values(released_as=turn.becomes.value))


def _rows(connection: sa.Connection, queue: str, gone: str, stands: Mapping[Any, str]) -> dict[Any, list[Any]]:
    """Account → the flag that stands and those that gave way to it, in the order of coming; of undone runs that flag alone."""
    at = (_flags.c.queue == queue) & _flags.c.account_id.in_(list(stands))
    gave_way = (_flags.c.state == FlagState.OVERTAKEN.value) & _flags.c.released_as.in_(_TURNED) & runs.c.undo_begun_at.is_(None)
    query = (
        sa.select(
            *(_flags.c.account_id, _flags.c.run_id, _flags.c.overtaken_by, _flags.c.as_of, _flags.c.score),
            *(_flags.c.second_reviewer, counts_as_evidence(_flags).label("counts")),
            *(runs.c.released_at, gave_way.label("gave_way")),
        )
        .select_from(_flags.join(runs, runs.c.run_id == _flags.c.run_id))
        .where(at, _flags.c.run_id != gone, gave_way | _flags.c.run_id.in_(set(stands.values())))
        .order_by(_flags.c.account_id, _flags.c.opened_at, _flags.c.run_id)
    )
    found: defaultdict[Any, list[Any]] = defaultdict(list)
    for row in connection.execute(query):
        flag = stands[row.account_id]
        if row.run_id == flag or (row.gave_way and row.overtaken_by in {flag, gone}):
            found[row.account_id].append(row)
    return found


def _least(connection: sa.Connection, run_ids: Iterable[str]) -> dict[str, MoreEvidence]:
    """Run → what its policy asks of evidence. Of the plan only that is read, since it may be of an older version."""
    query = sa.select(runs.c.run_id, runs.c.plan).where(runs.c.run_id.in_(sorted(run_ids)))
    asked = ((row.run_id, json.loads(row.plan)["spec"]["policy"].get("more_evidence")) for row in connection.execute(query))
    return {run_id: MoreEvidence.model_validate(held or {}) for run_id, held in asked}


def _voice(row: Any, said: Said, least: MoreEvidence) -> Voice:
    return Voice(run_id=row.run_id, said=said, counts=bool(row.counts), least=least, released_at=row.released_at)
