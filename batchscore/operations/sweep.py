"""What a sweep owes: how far its spec has come, which as-ofs were missed, and how stale a score can be. Decides; runs nothing.

A spec's *watermark* is the newest as-of for which one of its sweeps has finished: all input known before it has been scored.
It is read from the ledger and never written, so no crash can part the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from batchscore.digest import KeyDigest
from batchscore.errors import Refused
from batchscore.features.definitions import EPOCH
from batchscore.layout import Definitions
from batchscore.ports import RunRow, StoreReader, SweepRow
from batchscore.proving import prove_run
from batchscore.report.proof import AsOfProof
from batchscore.values import Value, format_duration

LOOK_BACK: Final = 30  # sweeps searched for the last one that left no account out; each costs a read of its receipts
FINISHED: Final = "finished"


class Due(Value):
    """What stands before a sweep at ``as_of`` begins."""

    as_of: datetime
    watermark: datetime | None
    missed: tuple[datetime, ...]  # as-ofs between the watermark and this one that no sweep has finished
    standing: str | None  # the run that has swept this as-of already


class Staleness(Value):
    """How old the score of an account can be. ``at_least_every_s``: the longest time from one sweep to the next."""

    first: datetime
    last: datetime
    n_sweeps: int
    at_least_every_s: int
    n_left_out: int  # accounts of the last sweep without a score: rejected, unscoreable or quarantined
    all_scored: datetime | None  # the newest sweep that scored every account; None: none of the last `LOOK_BACK`


class Sweep(Value):
    """How a sweep ended: what `batchscore sweep --json` prints."""

    run_id: str
    state: str
    as_of: datetime
    watermark: datetime | None
    missed: tuple[datetime, ...]
    n_quarantined: int
    staleness: Staleness | None


def latest_whole(moment: datetime, grain: timedelta) -> datetime:
    """The last whole grain at or before ``moment``, in UTC."""
    return EPOCH + (moment - EPOCH) // grain * grain


def watermark(sweeps: Sequence[SweepRow]) -> datetime | None:
    """The newest as-of with a finished sweep; None when there is none."""
    return max((sweep.as_of for sweep in sweeps if sweep.state == FINISHED), default=None)


def due(name: str, sweeps: Sequence[SweepRow], as_of: datetime, every: timedelta) -> Due:
    """What a sweep of the spec ``name`` at ``as_of`` finds; one is expected ``every`` so long.

    Raises:
        Refused: ``as_of_behind``: a newer as-of was swept, and none at this one.
    """
    finished = {sweep.as_of: sweep for sweep in sweeps if sweep.state == FINISHED}  # the newest generation comes last
    newest = watermark(sweeps)
    standing = finished[as_of].run_id if as_of in finished else None
    if newest is not None and as_of < newest and standing is None:
        raise _behind(name, as_of, newest)
    return Due(as_of=as_of, watermark=newest, missed=_between(newest, as_of, every), standing=standing)


def refuse_behind(name: str, found: Due) -> None:
    """Sweeping an as-of once more is for the newest only.

    Raises:
        Refused: ``as_of_behind``.
    """
    if found.watermark is not None and found.as_of < found.watermark:
        raise _behind(name, found.as_of, found.watermark)


def staleness(sweeps: Sequence[SweepRow], prove: Callable[[str], AsOfProof]) -> Staleness | None:
    """The bound that the finished sweeps give; None when there is none. ``prove``: run id → the proof of its last as-of."""
    finished = {sweep.as_of: sweep.run_id for sweep in sweeps if sweep.state == FINISHED and sweep.run_id is not None}
    if not finished:
        return None
    as_ofs = sorted(finished)
    n_left_out, all_scored = 0, None
    for number, as_of in enumerate(as_ofs[: -LOOK_BACK - 1 : -1]):
        left_out = _n_left_out(prove(finished[as_of]))
        n_left_out = left_out if number == 0 else n_left_out
        if left_out == 0:
            all_scored = as_of
            break
    longest = max((later - earlier for earlier, later in pairwise(as_ofs)), default=timedelta(0))
    return Staleness(
        first=as_ofs[0],
        last=as_ofs[-1],
        n_sweeps=len(as_ofs),
        at_least_every_s=int(longest.total_seconds()),
        n_left_out=n_left_out,
        all_scored=all_scored,
    )


def swept(row: RunRow, found: Due, reader: StoreReader) -> Sweep:
    """How the sweep that ``row`` ran stands now."""
    sweeps = reader.sweeps(row.name)

    def proof_of(run_id: str) -> AsOfProof:
        run = reader.run(run_id)
        return prove_run(run.plan, Definitions.of(run.plan), reader, run_id).as_ofs[-1]

    return Sweep(
        run_id=row.run_id,
        state=row.state,
        as_of=found.as_of,
        watermark=watermark(sweeps),
        missed=found.missed,
        n_quarantined=len(reader.quarantined(row.run_id)),
        staleness=staleness(sweeps, proof_of),
    )


def say_staleness(bound: Staleness) -> str:
    """The bound in a sentence."""
    every = timedelta(seconds=bound.at_least_every_s)
    bounded = (
        f"each account is scored at least every {format_duration(every)} "
        f"({bound.n_sweeps} sweeps, {bound.first:%Y-%m-%d} … {bound.last:%Y-%m-%d})"
        if every
        else f"this is the first sweep ({bound.last:%Y-%m-%d}): no bound yet"
    )
    if bound.n_left_out == 0:
        return f"{bounded}; the stalest score is as of {bound.last:%Y-%m-%d}"
    since = (
        f"last scored as of {bound.all_scored:%Y-%m-%d} or later"
        if bound.all_scored is not None
        else f"none of the last {min(bound.n_sweeps, LOOK_BACK)} sweeps scored every account"
    )
    return f"{bounded}; the stalest: {bound.n_left_out:,} account(s) without a score as of {bound.last:%Y-%m-%d}, {since}"


def _between(watermark: datetime | None, as_of: datetime, every: timedelta) -> tuple[datetime, ...]:
    if watermark is None:
        return ()
    n_missed = max(0, -((watermark - as_of) // every) - 1)
    return tuple(watermark + number * every for number in range(1, n_missed + 1))


def _behind(name: str, as_of: datetime, watermark: datetime) -> Refused:
    day = f"{as_of:%Y-%m-%d}"
    return Refused(
        "as_of_behind",
        f"{day} lies before {watermark:%Y-%m-%d}, up to which all input has been scored and released",
        where=f"sweep of {name}",
        remedy=f"look at the past without releasing it: batchscore backfill SPEC --from {day} --to {day}",
    )


def _n_left_out(proof: AsOfProof) -> int:
    return sum(KeyDigest.parse(part).n for part in (proof.unscoreable, proof.rejected, proof.quarantined))
