"""batchscore from Python: the public names, for notebooks and schedulers. The same plan, run and store as the commands use.

Nothing is printed. Errors are `errors.BatchscoreError`: ``Refused`` before anything was written, ``Interrupted`` when the run
can be resumed. The plan of a spec is made by ``make_plan``, as in the planner: `batchscore.plan` is a module.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from batchscore.attempt import attempt
from batchscore.deadline import parse_deadline
from batchscore.dispatch.limits import Limits
from batchscore.driver import operator_name
from batchscore.executors.connect import given_client, local_cluster, remote_cluster
from batchscore.executors.inline import InlineExecutor
from batchscore.features.feature_set import FeatureSet
from batchscore.operations.approve import approve_hold
from batchscore.operations.compare import ComparisonLimits, compare_bundle, compare_runs
from batchscore.operations.control import Controlled, ask, is_only_reported, withdraw_cancel
from batchscore.operations.explain import explain_account
from batchscore.pipeline import run as walk
from batchscore.plan import Plan
from batchscore.planner import make_plan, plan_again
from batchscore.readiness import get_ready
from batchscore.spec import RunSpec, read_spec
from batchscore.store import open_reader, open_store

if TYPE_CHECKING:
    from batchscore.events import Event
    from batchscore.executors.connect import GivenClient
    from batchscore.flag import AccountId
    from batchscore.hold import HoldRow
    from batchscore.ports import Executor, RunRow
    from batchscore.report.comparison import Comparison
    from batchscore.report.explanation import Explanation

__all__ = [
    "RunSpec",
    "approve",
    "cancel",
    "compare",
    "continue_",
    "explain",
    "make_plan",
    "open_reader",
    "pause",
    "read_spec",
    "resume",
    "run",
]


def run(  # noqa: PLR0913 (as many as there are ways to ask)
    what: Plan | RunSpec,
    *,
    client: GivenClient | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    inline: bool = False,
    again: bool = False,
    stall_limit: timedelta = timedelta(minutes=10),
    deadline: str = "",
) -> RunRow:
    """Walk the plan to its end; an unfinished run of it is resumed, a finished one is only returned.

    Args:
        what: A plan, or a spec whose plan is made now.
        client: A `distributed.Client`; it is used and never closed. On another host it must be TLS.
        scheduler: The address of a running scheduler, in place of a client.
        workers: The size of a cluster on this machine, which is the default (one worker a core) and ends with the call.
        inline: In this process, without Dask.
        again: The plan was run before: run its next generation.
        stall_limit: An attempt that takes longer is given up and tried again; a cluster that says nothing for so long is replaced
            if it was opened here.
        deadline: By when it is to be over: "06:00" (UTC), "06:00 Europe/Berlin", or RFC 3339. It ends nothing; `RunRow` tells.

    Raises:
        Refused: what planning refuses, another driver has the run, or the cluster cannot be used.
        Paused: a live source was above its critical load, and `resume` goes on; or the run is paused, and `continue_` is first.
        Cancelled: a person cancelled the run.
        Interrupted: the scheduler was lost; `resume` goes on.
        Held: the input is not what it usually is; `approve`, then `resume` goes on.
        QuarantineStop: a partition without which nothing may be scored was set aside.
        RunFailed: the proof does not close, or two attempts gave different bytes.
        ValueError: more than one of client, scheduler, workers and inline; or what is no deadline.
    """
    where = _Where(client, scheduler, workers, inline=inline, stall_s=stall_limit.total_seconds())
    limits = Limits(deadline=parse_deadline(deadline) if deadline else None)
    return _walked(make_plan(what) if isinstance(what, RunSpec) else what, where, limits, again=again)


def _walked(made: Plan, where: _Where, limits: Limits, *, again: bool) -> RunRow:
    with where.opened() as executor:
        store = open_store(Path(made.spec.store), FeatureSet.thaw(made.feature_set).account_id)  # not before a cluster is there
        return walk(made, executor=executor, store=store, observer=_silent, again=again, limits=limits)


def resume(  # noqa: PLR0913 (as `run`)
    run_id: str,
    *,
    store: Path | str,
    client: GivenClient | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    inline: bool = False,
    stall_limit: timedelta = timedelta(minutes=10),
    deadline: str = "",
    accept: Sequence[str] = (),
    by: str = "",
) -> RunRow:
    """Go on with a run where it was stopped, killed or cancelled. Arguments as `run`; a deadline stays the run's.

    Args:
        run_id: The run.
        store: The store's folder.
        client: As `run`; so are ``scheduler``, ``workers``, ``inline``, ``stall_limit`` and ``deadline``.
        scheduler: As `run`.
        workers: As `run`.
        inline: As `run`.
        stall_limit: As `run`.
        deadline: As `run`.
        accept: Libraries that may be other versions than the run's plan has pinned, such as "numpy"; recorded.
        by: Who accepts; by default whoever runs this process.

    Raises:
        Refused: ``plan_changed``, naming what differs; ``run_superseded``, ``not_acceptable``, ``run_unknown``, and as `run`.
        Paused: ``run_paused``: `continue_` comes first; and as `run`.
    """
    where = _Where(client, scheduler, workers, inline=inline, stall_s=stall_limit.total_seconds())
    reader, who = open_reader(Path(store)), by or operator_name()
    row = reader.run(run_id)
    if is_only_reported(row, reader):
        return row
    made, accepted = plan_again(row, reader.accepted(run_id), accepts=accept, by=who)
    limits = Limits(deadline=parse_deadline(deadline) if deadline else None, accepted=accepted)
    withdraw_cancel(Path(store), row, by=who)
    return _walked(made, where, limits, again=False)


def approve(run_id: str, *, store: Path | str, by: str, because: str = "") -> HoldRow:
    """Approve, in the name of ``by``, what a held run is held for; `resume` then goes on. Runs nothing.

    Raises:
        Refused: ``not_held``, ``run_unknown``.
    """
    return approve_hold(Path(store), run_id, by=by, because=because)


def pause(run_id: str, *, store: Path | str, by: str = "", why: str = "") -> Controlled:
    """Ask that a run rests, wherever its driver is: it finishes what is in flight and waits, with its lease, until `continue_`.

    ``by``: who asks; by default whoever runs this process. Waits up to 5 seconds for the driver to say that it saw.

    Raises:
        Refused: ``nothing_to_control``, ``run_unknown``.
    """
    return ask(Path(store), run_id, "paused", by=by or operator_name(), why=why)


def continue_(run_id: str, *, store: Path | str, by: str = "", why: str = "") -> Controlled:
    """Let a paused run go on: its driver does within two seconds; if it has none, `resume` may. Arguments as `pause`."""
    return ask(Path(store), run_id, None, by=by or operator_name(), why=why)


def cancel(run_id: str, *, store: Path | str, by: str = "", why: str = "") -> Controlled:
    """Ask that a run ends: its driver finishes what is in flight and raises Cancelled; only `resume` goes on. As `pause`."""
    return ask(Path(store), run_id, "cancelled", by=by or operator_name(), why=why)


def explain(run_id: str, account_id: AccountId, *, store: Path | str, as_of: datetime | None = None) -> Explanation:
    """Why an account of a run was flagged, or was not; all of it made again, and compared to the bit. Changes nothing.

    Args:
        run_id: A run that has decided.
        account_id: An id as the accounts' table has it: an int or a str.
        store: The store's folder.
        as_of: One of the run's; by default the newest at which the run selected the account, else its last.

    Raises:
        Refused: ``run_unknown``, ``run_unfinished``, ``account_unknown``; ``spec_invalid``: ``as_of`` is none of the run's.
    """
    reader = open_reader(Path(store))
    return explain_account(reader.run(run_id), reader, account_id, as_of)


def compare(
    run_id: str, other: str | None = None, *, bundle: str | Path | None = None, store: Path | str, budget: int | None = None
) -> Comparison:
    """What another run, or another bundle on this run's frozen input, would put before the reviewers at equal budget, and why.

    Args:
        run_id: The run compared with: A.
        other: A second run: B.
        bundle: In its place: the name of one of the run's shadows, or the path of a bundle, which is scored now, in this process.
        store: The store's folder.
        budget: Accounts that each side may select at an as-of; by default as many as run A did.

    Raises:
        Refused: ``run_unknown``, ``run_unfinished``, ``feature_contract``, or what reading a bundle refuses.
        ValueError: not exactly one of ``other`` and ``bundle``.
    """
    reader, asked = open_reader(Path(store)), ComparisonLimits(budget=budget)
    if bundle is not None and other is None:
        return compare_bundle(reader, reader.run(run_id), str(bundle), asked)
    if other is None or bundle is not None:
        msg = "name one thing to compare with: another run, or bundle="
        raise ValueError(msg)
    return compare_runs(reader, reader.run(run_id), reader.run(other), asked)


@dataclass(frozen=True, slots=True)
class _Where:
    """Where attempts run: one of these, or a cluster on this machine.

    Raises:
        ValueError: more than one was named.
    """

    client: GivenClient | None
    scheduler: str | None
    workers: int | None
    inline: bool
    stall_s: float

    def __post_init__(self) -> None:
        if sum((self.client is not None, self.scheduler is not None, self.workers is not None, self.inline)) > 1:
            msg = "client, scheduler, workers and inline exclude each other → keep one"
            raise ValueError(msg)

    @contextmanager
    def opened(self) -> Iterator[Executor]:
        """What was asked for; what is opened here is closed with the block."""
        if self.inline:
            yield InlineExecutor(attempt, stall_s=self.stall_s)
        elif self.client is not None:
            yield given_client(attempt, self.client, stall_s=self.stall_s)
        elif self.scheduler is not None:
            with remote_cluster(attempt, self.scheduler, stall_s=self.stall_s) as opened:
                yield opened
        else:
            with local_cluster(attempt, n_workers=self.workers, prepare=get_ready, stall_s=self.stall_s) as opened:
                yield opened


def _silent(event: Event) -> None:
    """Nobody listens: whoever wants to see progress looks at the ledger (`open_reader`, `batchscore watch`)."""
