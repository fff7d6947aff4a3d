"""Release: a run's flags before the reviewers, all of them or none that anybody can see.

Rows go in by account id, in bounded statements and transactions. The reviewers' view shows only runs whose ``released_at``
is set, and the last transaction sets it. An account that already has a flag that stands in the queue keeps that one, and ours
is recorded as overtaken, by which run too: it is evidence on that one where it says more than the newest, and an undo can put
it in its place. One that was put before the reviewers for the same as-of is not put there again, and what a person decided on
newer evidence stays: ours changes nothing. A flag that nobody can see, of a run that stopped inside its release, gives way to
ours; one that was withdrawn is as if it had never been. After the flags comes what the run adds to those that stood when it
decided (`inserting`). Doing it all again after a crash finds its own rows and changes none of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final

import sqlalchemy as sa

from batchscore.audit import Act
from batchscore.command import command
from batchscore.database import clock, transact
from batchscore.errors import Refused, TryAgain
from batchscore.failpoints import Point, reach
from batchscore.flag import BEFORE_REVIEWERS, AnyFlag, FlagState, ReleasedAs
from batchscore.plan import Plan
from batchscore.ports import MemoryRead, ReleaseCount, RunHandle
from batchscore.store.audit import Done
from batchscore.store.fencing import Fence
from batchscore.store.inserting import Insertion, ReviewDatabase, next_ordinal
from batchscore.store.kept_back import Late
from batchscore.store.outbox import Change, append_events, append_release, told_as
from batchscore.store.rows import from_microseconds, stored_id
from batchscore.store.tables import flags_table, queues, runs, sweeps

ROWS_A_STATEMENT = 500  # tests make these two smaller
ROWS_A_TRANSACTION = 10_000
DAY: Final = 86_400_000_000  # microseconds

_flags: Final = flags_table("raw")


@dataclass(frozen=True, kw_only=True, slots=True)
class ToRelease:
    """What a run releases: ``flags``, then ``evidence`` on others, each in key order.

    ``memory``: what people wrote since it was read, decide did not see. None: unknown, as of a run of an earlier release.
    """

    flags: Iterable[AnyFlag]
    evidence: Iterable[AnyFlag] = ()
    memory: MemoryRead | None = None


def release(run: RunHandle, asked: ToRelease, fence: Fence, database: ReviewDatabase) -> ReleaseCount:
    """Insert what is asked for, and set ``released_at``; a released run is left as it is.

    Raises:
        Fenced: a newer driver has the run.
        Refused: ``id_too_large``, or ``as_of_behind``: the run is a sweep, and a newer as-of of its spec was swept meanwhile.
    """

    def look(connection: sa.Connection) -> tuple[float | None, Insertion]:
        row = connection.execute(sa.select(runs.c.released_at, runs.c.plan).where(runs.c.run_id == run.run_id)).one()
        if row.released_at is None:
            _refuse_behind(connection, run)
        at = clock(connection, database.now)
        return row.released_at, replace(_insertion_of(run, row.plan, database, at), since=asked.memory)

    def publish(connection: sa.Connection) -> None:
        if queue:  # whoever is at work there has either seen these flags unreleased, or sees them released
            lock_queue(connection, queue)
        unreleased = (runs.c.run_id == run.run_id) & runs.c.released_at.is_(None)
        if connection.execute(sa.select(runs.c.run_id).where(unreleased)).first() is None:
            return
        _refuse_behind(connection, run)
        at = clock(connection, database.now)
        late.keep_back(connection, queue, at)
        connection.execute(runs.update().where(unreleased).values(released_at=database.now))
        reach(Point.RELEASING)
        count = _count(connection, run)
        if count != ReleaseCount.of({}):
            done = Done(act=Act.RELEASED, who=run.owner, run_id=run.run_id, detail=count.said())
            database.trail.append(connection, [done])
            append_release(connection, run.run_id, run.owner, queue, at)

    queue, late = "", Late(run.run_id, database.now, database.largest_id, asked.memory)
    released, insertion = fence.write(run, look)
    if released is None:
        reach(Point.RELEASE_BEGUN)
        for how, those in ((insertion, asked.flags), (replace(insertion, adding=True), asked.evidence)):
            for part in _parts(late.noting(those), ROWS_A_TRANSACTION):
                queue = part[0].queue
                fence.write(run, _Inserting(how, part))
                reach(Point.FLAGS_INSERTED)
        fence.write(run, publish)
        reach(Point.RELEASED)
    return fence.write(run, lambda connection: _count(connection, run))


def release_more(
    engine: sa.Engine, run_id: str, flags: Iterable[AnyFlag], by: str, database: ReviewDatabase, per_day: int | None = None
) -> ReleaseCount:
    """Put more flags (in key order) of a run that is released before the reviewers; each transaction is seen at once. Repeatable.

    ``per_day``: no more of the run's on a day (UTC, by the database's clock); those of the best ranks go.

    Raises:
        Refused: ``id_too_large``, or ``nothing_to_release``: the run is not released, or an undo of it was begun.
    """
    added: Counter[ReleasedAs] = Counter()
    for part in _parts(flags, ROWS_A_TRANSACTION):
        addition = _Addition(run_id, part, by, database, per_day)
        added += transact(engine, addition, where="store", landed=addition.landed)
    return ReleaseCount.of(added)


class _Addition:
    """One transaction's flags of a released run. Locks in the order of all: the run's row, the queue's, flags, the head's."""

    def __init__(self, run_id: str, flags: list[AnyFlag], by: str, database: ReviewDatabase, per_day: int | None) -> None:
        self._run, self._flags = RunHandle(run_id=run_id, epoch=0, owner=by, store=str(database.trail.folder)), flags
        self._database, self._per_day = database, per_day
        self._last: Any = None  # of what it made: the account and the ordinal

    def landed(self, connection: sa.Connection) -> bool:
        """Whether what it made stands, after a COMMIT without an answer: done again it would make, and count, nothing."""
        of_run = _flags.c.run_id == self._run.run_id
        connection.execute(sa.select(runs.c.run_id).where(runs.c.run_id == self._run.run_id).with_for_update())
        if self._last is None:
            return False
        account_id, ordinal = self._last
        there = sa.select(_flags.c.release_ordinal).where(of_run, _flags.c.release_ordinal == ordinal)
        return connection.execute(there.where(_flags.c.account_id == account_id)).first() is not None

    def __call__(self, connection: sa.Connection) -> Counter[ReleasedAs]:
        run, database = self._run, self._database
        asked = (runs.c.released_at, runs.c.undo_begun_at, runs.c.plan)
        of_run = sa.select(*asked).where(runs.c.run_id == run.run_id).with_for_update()
        row = connection.execute(of_run).one()
        if row.released_at is None or row.undo_begun_at is not None:
            raise Refused(
                "nothing_to_release",
                "the run has released nothing yet" if row.released_at is None else "the run is undone, or being so",
                where=f"run {run.run_id}",
                remedy=f"look how it stands: {command('status', run.run_id, run.store)}",
            )
        queue = self._flags[0].queue
        lock_queue(connection, queue)
        at = clock(connection, database.now)
        first = next_ordinal(connection, run)
        insertion = _insertion_of(run, row.plan, database, at)
        going = self._within_pace(connection, at, int(row.released_at * 1_000_000))
        for rows in _parts(going, ROWS_A_STATEMENT):
            insertion.insert(connection, rows)
        columns = (_flags.c.account_id, _flags.c.run_id, _flags.c.released_as, _flags.c.release_ordinal)
        new = sa.select(*columns).where(_flags.c.run_id == run.run_id, _flags.c.release_ordinal >= first)
        made = connection.execute(new.order_by(_flags.c.release_ordinal)).all()
        self._last = (made[-1].account_id, made[-1].release_ordinal) if made else None
        counts = Counter(ReleasedAs(one.released_as) for one in made)
        if made:
            said = ReleaseCount.of(counts).said("more flags")
            database.trail.append(connection, [Done(act=Act.RELEASED, who=run.owner, run_id=run.run_id, detail=said)])
            append_events(connection, [_came(run.owner, queue, one) for one in made], at)
        return counts

    def _within_pace(self, connection: sa.Connection, at: int, released_at: int) -> list[AnyFlag]:
        """Those that may go at that moment, in key order: the queue is locked, so nobody else counts the same places as free."""
        if self._per_day is None:
            return self._flags
        mine = _flags.c.run_id == self._run.run_id
        today = (_flags.c.opened_at >= at - at % DAY) & (_flags.c.opened_at > released_at)  # the release's own came before it
        today &= _flags.c.released_as != ReleasedAs.SUPPRESSED.value
        n_today = connection.execute(sa.select(sa.func.count()).select_from(_flags).where(mine, today)).scalar_one()
        ids = [stored_id(flag.account_id, self._database.largest_id) for flag in self._flags]
        there = set(connection.execute(sa.select(_flags.c.account_id).where(mine, _flags.c.account_id.in_(ids))).scalars())
        new = [flag for flag, stored in zip(self._flags, ids, strict=True) if stored not in there]
        best = sorted(new, key=lambda flag: flag.rank)[: max(0, self._per_day - n_today)]
        going = {flag.rank for flag in best}
        return [flag for flag in new if flag.rank in going]


def _came(who: str, queue: str, row: Any) -> Change:
    act, state = told_as(row.released_as)
    return Change(act, who, queue, row.account_id, row.run_id, state)


def _refuse_behind(connection: sa.Connection, run: RunHandle) -> None:
    """An old sweep that is resumed, or was slow, must not put the past before reviewers over a newer sweep."""
    mine, newer, theirs = sweeps.alias("mine"), sweeps.alias("newer"), runs.alias("theirs")
    query = (
        sa.select(sa.func.max(newer.c.as_of))
        .select_from(
            runs.join(mine, (mine.c.plan_digest == runs.c.plan_digest) & (mine.c.name == runs.c.name))
            .join(newer, (newer.c.name == mine.c.name) & (newer.c.as_of > mine.c.as_of))
            .join(theirs, theirs.c.plan_digest == newer.c.plan_digest)
        )
        .where(runs.c.run_id == run.run_id, theirs.c.released_at.is_not(None))
    )
    swept = connection.execute(query).scalar()
    if swept is not None:
        raise Refused(
            "as_of_behind",
            f"{from_microseconds(swept):%Y-%m-%d} was swept and released meanwhile: nothing of this sweep is released over it",
            where=f"run {run.run_id}",
            remedy="nothing needs to be done: the newer sweep scored every account",
        )


class _Inserting:
    """One transaction's flags, of one queue. The queue's row is locked first: releases into one queue take turns."""

    def __init__(self, insertion: Insertion, flags: list[AnyFlag]) -> None:
        self._insertion, self._flags = insertion, flags

    def __call__(self, connection: sa.Connection) -> None:
        lock_queue(connection, self._flags[0].queue)
        for rows in _parts(self._flags, ROWS_A_STATEMENT):
            self._insertion.insert(connection, rows)


def _insertion_of(run: RunHandle, plan: str, database: ReviewDatabase, at: int) -> Insertion:
    spec = Plan.model_validate_json(plan).spec
    return Insertion(run=run, database=database, opened_at=at, least=spec.policy.more_evidence)


def lock_queue(connection: sa.Connection, queue: str) -> None:
    """Releases and undos take turns: two could both find an account free, and one would die of the other's flag."""
    locked = sa.select(queues.c.queue).where(queues.c.queue == queue).with_for_update()
    if connection.execute(locked).first() is None:
        try:
            connection.execute(queues.insert().values(queue=queue))
        except sa.exc.IntegrityError:
            raise TryAgain("commit_conflict", "another release made this queue just now", where=f"queue {queue}") from None


def _count(connection: sa.Connection, run: RunHandle) -> ReleaseCount:
    counted = sa.select(_flags.c.state, _flags.c.released_as, sa.func.count().label("n")).where(_flags.c.run_id == run.run_id)
    rows = connection.execute(counted.group_by(_flags.c.state, _flags.c.released_as)).all()
    counts: Counter[ReleasedAs] = Counter()
    for row in rows:  # one that stands in the place of a withdrawn flag is before the reviewers, whatever it came as
        came_before, is_before = row.released_as in BEFORE_REVIEWERS, row.state != FlagState.OVERTAKEN
        now = ReleasedAs.OPENED if is_before else ReleasedAs.UNMOVED
        counts[ReleasedAs(row.released_as) if came_before == is_before else now] += row.n
    return ReleaseCount.of(counts)


def _parts(flags: Iterable[AnyFlag], size: int) -> Iterator[list[AnyFlag]]:
    left = iter(flags)
    while part := list(islice(left, size)):
        yield part
