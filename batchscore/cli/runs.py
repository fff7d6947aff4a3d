"""check, plan, run, resume: from a spec to a run."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from batchscore.cli.options import JSON, RUN, STORE
from batchscore.cli.telling import Telling, telling_options
from batchscore.errors import QUARANTINED
from batchscore.observe.text import plain

if TYPE_CHECKING:
    from batchscore.acceptance import Accepted
    from batchscore.deadline import Deadline
    from batchscore.models.loading import Route
    from batchscore.plan import Plan
    from batchscore.ports import Executor, RunRow, StoreReader

    OpenExecutor = Callable[[], AbstractContextManager[Executor]]

MAX_MINUTES = 60 * 24 * 365
SPEC = click.argument("spec", type=click.Path(path_type=Path))


class _Minutes(click.ParamType[timedelta]):
    """How long, in minutes."""

    name = "minutes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """The text as a duration; not even a wait that begins is allowed with 0."""
        return timedelta(minutes=click.FloatRange(min=0, max=MAX_MINUTES).convert(value, param, ctx))


class _Deadline(click.ParamType["Deadline"]):
    """A time of day, of a zone, or a moment."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Deadline:
        """The text as a deadline."""
        from batchscore.deadline import parse_deadline

        try:
            return parse_deadline(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a driver is told beside its plan and its executor; who hears of it."""

    telling: Telling
    max_wait: timedelta | None = None
    deadline: Deadline | None = None
    accepted: tuple[Accepted, ...] = ()


def executor_options(command: Callable[..., int]) -> Callable[..., int]:
    """Where attempts run, who scores, how long may be waited, who hears of it.

    The command is given ``executor``, which opens what the options ask for, and ``terms``.
    """

    @wraps(command)
    def with_executor(  # noqa: PLR0913 (as many as there are options)
        *args: Any,
        inline: bool,
        workers: int | None,
        scheduler: str | None,
        insecure: bool,
        route: Route,
        stall_limit: timedelta,
        max_wait: timedelta | None,
        deadline: Deadline | None,
        telling: Telling,
        **others: Any,
    ) -> int:
        where = partial(open_executor, inline=inline, workers=workers, scheduler=scheduler, insecure=insecure)
        executor = partial(where, route=route, stall_limit=stall_limit)
        terms = Terms(telling=telling, max_wait=max_wait, deadline=deadline)
        return command(*args, executor=executor, terms=terms, **others)

    options = (
        click.option("--inline", is_flag=True, help="Run in this process, without Dask."),
        click.option("--workers", type=click.IntRange(min=1), help="Size of the local cluster.  [default: one per core]"),
        click.option("--scheduler", metavar="ADDRESS", help="Use a running Dask scheduler (tcp://… or tls://…)."),
        click.option("--insecure", is_flag=True, help="Accept a scheduler on another host without TLS."),
        click.option(
            "--max-wait",
            type=_Minutes(),
            help="End, held and resumable, when one wait (for a live source, for workers) lasts so long.  [default: wait on]",
        ),
        click.option(
            "--deadline",
            type=_Deadline(),
            metavar="TIME",
            help="By when it is to be over: '06:00', '06:00 Europe/Berlin' or RFC 3339. An ETA beyond is told; nothing is cut.",
        ),
        click.option(
            "--stall-limit",
            type=_Minutes(),
            default="10",
            show_default=True,
            help="Give an attempt that takes so long up, end its worker if it is ours, and try it again.",
        ),
        click.option(
            "--scorer",
            "route",
            type=click.Choice(["fastest", "xgboost"]),
            default="fastest",
            show_default=True,
            help="The compiled scorer where its bits are XGBoost's, or XGBoost alone.",
        ),
    )
    decorated: Callable[..., int] = telling_options(with_executor)
    for option in options:
        decorated = option(decorated)
    return decorated


@click.command()
@SPEC
@JSON
def check(spec: Path, *, as_json: bool) -> int:
    """Find every mistake in SPEC, its feature set, bundle and inputs. Writes nothing."""
    from batchscore.cli.outputs import Checked
    from batchscore.planner import make_plan
    from batchscore.spec import read_spec

    read = read_spec(spec)
    if read.as_of is None:
        from batchscore.cli.schedule import today

        made = make_plan(read.at((today(read),), release=read.release))
        found = Checked(spec=str(spec), plan_digest=None, warnings=made.warnings)
        said = "its as-of is said by batchscore backfill or batchscore sweep"
    else:
        made = make_plan(read)
        found = Checked(spec=str(spec), plan_digest=made.digest, warnings=made.warnings)
        said = f"plan {made.digest[:12]}"
    if as_json:
        click.echo(found.model_dump_json(indent=2))
        return 0
    _warn(made)
    click.echo(f"{plain(spec.name)}: no mistakes; {said}")
    return 0


def _warn(made: Plan) -> None:
    for warning in made.warnings:
        click.echo(f"warning: {plain(warning)}", err=True)


@click.command()
@SPEC
@JSON
def plan(spec: Path, *, as_json: bool) -> int:
    """Show what a run of SPEC would do, and its hash. Writes nothing."""
    made = _plan(spec)
    if as_json:
        from batchscore.cli.outputs import PlanShown

        click.echo(PlanShown.of(made).model_dump_json(indent=2))
        return 0
    from batchscore.observe.terminal import show_plan

    show_plan(made, Console())
    _warn(made)
    click.echo(f"\nnext: batchscore run {plain(str(spec))} --plan {made.digest[:12]}")
    return 0


ACCEPT = click.option(
    "--accept",
    "accepts",
    metavar="FIELD",
    multiple=True,
    help="Accept another version of this library; recorded. Repeatable.",
)
BY = click.option("--by", default="", metavar="NAME", help="Who accepts, for the record.  [default: user@host]")


@click.command()
@SPEC
@click.option(
    "--plan",
    "approved",
    metavar="PLAN",
    help="Run only this plan (a hash, or what plan --json printed): refuse, naming what differs.",
)
@ACCEPT
@BY
@click.option("--again", is_flag=True, help="The plan was run before: run its next generation.")
@executor_options
@JSON
def run(  # noqa: PLR0913 (a command's options are its arguments)
    spec: Path,
    *,
    approved: str | None,
    accepts: tuple[str, ...],
    by: str,
    again: bool,
    executor: OpenExecutor,
    terms: Terms,
    as_json: bool,
) -> int:
    """Do what the plan of SPEC says. An unfinished run of the same plan is resumed; a finished one is only reported."""
    from batchscore.operations.approved_plan import hold_to

    if accepts and approved is None:
        msg = "--accept says what may differ from an approved plan: name that with --plan"
        raise click.UsageError(msg)
    made = _plan(spec)
    if approved is not None:
        accepted = hold_to(made, approved, plain(str(spec)), accepts=accepts, by=_who(by))
        terms = replace(terms, accepted=accepted)
    row = run_plan(made, again=again, executor=executor(), terms=terms)
    return tell_end(row, as_json=as_json)


@click.command()
@RUN
@STORE
@ACCEPT
@BY
@executor_options
@JSON
def resume(  # noqa: PLR0913 (as `run`)
    run_id: str,
    store: Path,
    *,
    accepts: tuple[str, ...],
    by: str,
    executor: OpenExecutor,
    terms: Terms,
    as_json: bool,
) -> int:
    """Go on with RUN where it was stopped or killed; refused when a pinned part has changed since, or it is paused."""
    from batchscore.operations.control import withdraw_cancel
    from batchscore.planner import plan_again
    from batchscore.store import open_reader

    reader, who = open_reader(store), _who(by)
    stood = reader.run(run_id)
    made, accepted = plan_again(stood, reader.accepted(run_id), accepts=accepts, by=who)
    withdraw_cancel(store, stood, by=who)
    row = run_plan(made, again=False, executor=executor(), terms=replace(terms, accepted=accepted))
    return tell_end(row, as_json=as_json)


def _who(by: str) -> str:
    """The name that is recorded."""
    from batchscore.driver import operator_name
    from batchscore.operations.control import mistake_of

    by = by.strip() or operator_name()
    if mistake := mistake_of(by, ""):
        raise click.UsageError(mistake)
    return by


def run_plan(
    made: Plan,
    *,
    again: bool,
    executor: AbstractContextManager[Executor],
    terms: Terms,
) -> RunRow:
    """Walk a plan; progress is told on stderr, and to whom ``terms`` name."""
    from batchscore.dispatch.limits import Limits
    from batchscore.features.feature_set import FeatureSet
    from batchscore.operations.sweep import watermark
    from batchscore.pipeline import run as walk
    from batchscore.store import open_store

    kind = FeatureSet.thaw(made.feature_set).account_id
    with stop_on_signal() as stop, terms.telling.opened(made.spec.name) as told, executor as opened:
        _warn(made)
        store = open_store(Path(made.spec.store), kind)
        limits = Limits(stop=stop, max_wait=terms.max_wait, deadline=terms.deadline, accepted=terms.accepted)
        told.watermark = lambda: watermark(store.reader().sweeps(made.spec.name))
        try:
            row = walk(made, executor=opened, store=store, observer=told, again=again, limits=limits)
        finally:
            stop.ended()
        told.n_quarantined = len(store.reader().quarantined(row.run_id))
        return row


def tell_end(row: RunRow, *, as_json: bool) -> int:
    """One line on how the run stands and the command that comes next; the exit code."""
    from batchscore.store import open_reader

    store = row.plan.spec.store
    reader = open_reader(Path(store))
    aside = reader.quarantined(row.run_id)
    if as_json:
        from batchscore.cli.outputs import RunEnded, RunShown

        ended = RunEnded(run=RunShown.of(row), store=store, quarantined=aside, warnings=row.plan.warnings)
        click.echo(ended.model_dump_json(indent=2))
        return QUARANTINED if aside else 0
    for partition in aside:
        click.echo(plain(f"quarantined: {partition.stage} {partition.number}: {partition.message}"), err=True)
    click.echo(f"{row.run_id} {row.state}" + (f", {len(aside)} partition(s) quarantined" if aside else ""))
    if row.undo_begun_at is not None:
        click.echo("its flags were taken back (batchscore undo); to put them before the reviewers again: --again, as a new run")
    if row.state == "finished":
        _tell_set_aside(row, reader)
    if aside:
        click.echo(f"mend the cause, then: batchscore retry {row.run_id} --quarantined --store {plain(store)}")
    click.echo(f"next: batchscore report {row.run_id} --store {plain(store)}\n      batchscore queue --store {plain(store)}")
    return QUARANTINED if aside else 0


def _tell_set_aside(row: RunRow, reader: StoreReader) -> None:
    from batchscore.layout import Definitions
    from batchscore.proving import prove_run

    proof = prove_run(row.plan, Definitions.of(row.plan), reader, row.run_id)
    if proof.n_rows_rejected or proof.n_orphans:
        counts = f"{proof.n_rows_rejected:,} rows rejected on reading, {proof.n_orphans:,} events of unknown accounts"
        click.echo(f"set aside: {counts} → batchscore status {row.run_id} --rejected --store {plain(row.plan.spec.store)}")


AT_ONCE_AFTER_S = 20.0  # supervisors kill after 30


class Stop(threading.Event):
    """Set by Ctrl-C and SIGTERM: what is in flight is drained. A second Ctrl-C stops at once.

    So does a driver that has not looked after `AT_ONCE_AFTER_S`: inline, it is inside an attempt.
    """

    def __init__(self) -> None:
        super().__init__()
        main = threading.main_thread().ident or 0
        self._at_once = threading.Timer(AT_ONCE_AFTER_S, lambda: signal.pthread_kill(main, signal.SIGINT))
        self._at_once.daemon = True

    def ask(self, _signal: int, _frame: object) -> None:
        """Handle a signal."""
        if self.is_set():
            raise KeyboardInterrupt
        self.set()
        self._at_once.start()

    def ended(self) -> None:
        """The walk is over, and has said how: only what it opened is still to be closed."""
        self._at_once.cancel()


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """A stop that Ctrl-C and SIGTERM ask for within the block."""
    stop = Stop()
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        stop.ended()
        for number, handler in before.items():
            signal.signal(number, handler)


def _plan(spec: Path) -> Plan:
    from batchscore.planner import make_plan
    from batchscore.spec import read_spec

    return make_plan(read_spec(spec))


@contextmanager
def open_executor(
    *,
    inline: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
    insecure: bool = False,
    route: Route = "fastest",
    stall_limit: timedelta = timedelta(minutes=10),
) -> Iterator[Executor]:
    """The executor that a command's options ask for; what it opened is closed with the block."""
    from batchscore.attempt import attempt as by_fastest

    attempt = by_fastest if route == "fastest" else partial(by_fastest, route=route)
    if sum((inline, workers is not None, scheduler is not None)) > 1:
        msg = "--inline, --workers and --scheduler exclude each other"
        raise click.UsageError(msg)
    if inline:
        from batchscore.executors.inline import InlineExecutor

        yield InlineExecutor(attempt, stall_s=stall_limit.total_seconds())
        return
    from batchscore.executors.connect import local_cluster, remote_cluster
    from batchscore.readiness import get_ready

    if scheduler:
        opened = remote_cluster(attempt, scheduler, insecure=insecure, stall_s=stall_limit.total_seconds())
    else:
        opened = local_cluster(attempt, n_workers=workers, prepare=get_ready, stall_s=stall_limit.total_seconds())
    with opened as executor:
        yield executor
