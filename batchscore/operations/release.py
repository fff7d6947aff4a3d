"""More of a run: what its decision kept in reserve, who of it may go by what is known now, and letting it go."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from batchscore.command import command, word
from batchscore.decide.again import moved_since
from batchscore.decide.memory import Memory, Moment, judge, remember
from batchscore.decide.table import WITHHELD
from batchscore.decision import flags_of_rows, found_closer, reserve_of
from batchscore.errors import Refused
from batchscore.flag import ReleasedAs
from batchscore.keys import ACCOUNT_ID, ID_TYPES
from batchscore.layout import Definitions, decided_rows
from batchscore.plan import Stage
from batchscore.ports import HeldFlag, MemoryRead, RunRow, StoreReader
from batchscore.store import open_reader, open_store
from batchscore.values import Value

SUPPRESSED_SINCE: Final = "suppressed_since"  # beside `decide.memory.Withheld`, which decide knows of


class WithheldShown(Value):
    """An account that would have been flagged, and why it was not, in words."""

    account_id: int | str
    score: float
    withheld: str
    why: str


class ReserveShown(Value):
    """The reserve of a run. ``n_kept``: what decide kept; ``n_gone``: what went before the reviewers since.

    ``withheld``: of what is left, whom memory withholds by now, by why. ``n_next``: how many may go now, at the policy's pace,
    from ``next_rank`` on; ``n_later``: the rest. ``n_released``, ``n_overtaken``: what this call did; nothing without --apply.
    ``never_flagged``: who would have been flagged when the run decided and was withheld, by why; ``would``: each, if asked for.
    """

    run_id: str
    queue: str
    n_kept: int
    n_gone: int
    withheld: dict[str, int]
    n_next: int
    next_rank: int | None
    n_later: int
    n_released: int = 0
    n_overtaken: int = 0
    n_evidence: int = 0
    never_flagged: dict[str, int]
    would: tuple[WithheldShown, ...] = ()


def release_reserve(folder: Path, run_id: str, *, count: int | None, apply: bool, by: str) -> ReserveShown:
    """Show, or let go, the next of the reserve: by rank, ``count`` of them at most, within the policy's pace.

    Two at once choose the same accounts, so together they let no more go than one.

    Raises:
        Refused: ``run_unknown``; ``nothing_to_release``: it released nothing, or is undone; ``as_of_behind``: a newer as-of of
            its spec was swept and released.
    """
    reader = open_reader(folder)
    row, now = reader.run(run_id), reader.clock()
    if row.decision is None or row.released_at is None or row.undo_begun_at is not None:
        what = "the run is undone, or being so" if row.undo_begun_at else f"the run has released nothing: it is {row.stands}"
        remedy = f"look how it stands: {command('status', run_id, folder)}"
        raise Refused("nothing_to_release", what, where=f"run {run_id}", remedy=remedy)
    _refuse_behind(row, reader)
    kept = reserve_of(row)
    held = {flag.flag.account_id: flag for flag in reader.flags(run_id)}
    left = kept.filter(pa.array([account not in held for account in kept[ACCOUNT_ID].to_pylist()], pa.bool_()))
    memory = _memory_now(row, reader)
    kinds = _withheld_now(left, row, memory, reader)
    free = left.filter(pa.array([kind is None for kind in kinds], pa.bool_()))
    came = [held[account] for account in kept[ACCOUNT_ID].to_pylist() if account in held]
    gone = [flag for flag in came if flag.released_as is not ReleasedAs.SUPPRESSED]
    n_open = len(memory.open_accounts) + sum(flag.is_open for flag in held.values())
    asked = [] if count is None else [count]
    n_next = max(0, min([len(free), *_paces(row, gone, n_open, now), *asked]))
    shown = ReserveShown(
        run_id=run_id,
        queue=row.plan.spec.policy.queue,
        n_kept=len(kept),
        n_gone=len(gone),
        withheld=_counted(kinds),
        n_next=n_next,
        next_rank=free["rank"][0].as_py() if len(free) else None,
        n_later=len(free) - n_next,
        n_evidence=reader.released_as(run_id).get(ReleasedAs.EVIDENCE, 0),
        never_flagged=_counted([*decided_rows(row.decision, WITHHELD)["withheld"].to_pylist(), *map(_kept_back, held.values())]),
    )
    return _let_go(folder, row, reader, free.slice(0, n_next), shown, by) if apply and n_next else shown


def would_have_been(folder: Path, run_id: str) -> tuple[WithheldShown, ...]:
    """Whom decide withheld at the last as-of of the run, best score first; then whom a suppression kept back since.

    Raises:
        Refused: ``run_unknown``, or ``run_unfinished``: it has not decided.
    """
    reader = open_reader(folder)
    row = reader.run(run_id)
    if row.decision is None:
        remedy = command("status", run_id, folder)
        raise Refused("run_unfinished", f"{run_id} has not decided yet: it is {row.stands}", remedy=remedy)
    rows = decided_rows(row.decision, WITHHELD)
    last = pa.scalar(row.plan.spec.as_ofs()[-1], rows.schema.field("as_of").type)
    withheld = [
        WithheldShown(account_id=one[ACCOUNT_ID], score=one["score"], withheld=one["withheld"], why=one["why"])
        for one in rows.filter(pc.equal(rows["as_of"], last)).to_pylist()
    ]
    since = sorted((one.flag for one in reader.flags(run_id) if _kept_back(one)), key=lambda flag: flag.rank)
    for flag in since if row.released_at is not None else ():
        why = "a suppression came since the run decided"
        withheld.append(WithheldShown(account_id=flag.account_id, score=flag.score, withheld=SUPPRESSED_SINCE, why=why))
    return tuple(withheld)


def _kept_back(flag: HeldFlag) -> str | None:
    return SUPPRESSED_SINCE if flag.released_as is ReleasedAs.SUPPRESSED else None


def _let_go(folder: Path, row: RunRow, reader: StoreReader, chosen: pa.Table, shown: ReserveShown, by: str) -> ReserveShown:
    definitions = Definitions.of(row.plan)
    flags = flags_of_rows(chosen, row, definitions, reader.receipts(row.run_id, Stage.REASONS))
    done = open_store(folder, definitions.feature_set.account_id).release_more(
        row.run_id, flags, by=by, per_day=row.plan.spec.policy.per_day
    )
    n_gone = shown.n_gone + done.n_flags + done.n_overtaken
    more = {"n_released": done.n_flags, "n_overtaken": done.n_overtaken, "n_next": 0, "n_gone": n_gone}
    return shown.model_copy(update=more)


def _paces(row: RunRow, gone: list[HeldFlag], n_open: int, now: datetime) -> list[int]:
    """What the policy leaves for now: of its day, and of the budget where that is less what stands in the queue."""
    policy = row.plan.spec.policy
    left = []
    if policy.per_day is not None:
        today = now.replace(hour=0, minute=0, second=0, microsecond=0)
        left.append(policy.per_day - sum(flag.opened_at >= today for flag in gone))
    if policy.less_open and policy.budget is not None:
        left.append(policy.budget - n_open)
    return left


def _memory_now(row: RunRow, reader: StoreReader) -> Memory:
    queue = row.plan.spec.policy.queue
    kind = ID_TYPES[Definitions.of(row.plan).feature_set.account_id]
    held = remember(reader.past_columns(queue, but_not_of=row), reader.suppressions(queue), kind, MemoryRead(reader.clock()))
    return Memory(held, Moment(as_of=row.plan.spec.as_ofs()[-1], released=True))


def _withheld_now(left: pa.Table, row: RunRow, memory: Memory, reader: StoreReader) -> list[str | None]:
    """Of each row of the reserve: why memory as it is now withholds it; None where it does not."""
    policy, at = row.plan.spec.policy, Moment(as_of=row.plan.spec.as_ofs()[-1], released=True)
    groups = {"domain": "domain", "segment": "segment"}
    looked_at = found_closer(Definitions.of(row.plan), reader.receipts(row.run_id, Stage.RECONSIDER), at.as_of)
    newest = memory.decided  # a closer look speaks of the decision that the run saw, and not of one since
    since = newest.filter(pc.greater(newest["decided_at"], pa.scalar(row.released_at, newest.schema.field("decided_at").type)))
    decided_since = set(since[ACCOUNT_ID].to_pylist())
    looks = {account: one for account, one in looked_at.items() if account not in decided_since}
    judged = judge(left, memory, policy.cool_down, groups, moved_since(policy.again, looks), at)
    return [None if kind is None else kind.value for kind in judged.kinds]


def _refuse_behind(row: RunRow, reader: StoreReader) -> None:
    """The reserve of an old sweep is what a newer one has decided on anew."""
    as_of = row.plan.spec.as_ofs()[-1]
    swept = {sweep.plan_digest for sweep in reader.sweeps(row.name)}
    newer = [sweep.as_of for sweep in reader.sweeps(row.name) if sweep.released_at is not None and sweep.as_of > as_of]
    if row.plan_digest in swept and newer:
        raise Refused(
            "as_of_behind",
            f"{max(newer):%Y-%m-%d} was swept and released meanwhile, and decided on every account anew",
            where=f"run {row.run_id}",
            remedy=f"release of that run's reserve instead: batchscore status --store {word(row.plan.spec.store)} lists the runs",
        )


def _counted(kinds: list[str | None]) -> dict[str, int]:
    return dict(sorted(Counter(kind for kind in kinds if kind is not None).items()))
