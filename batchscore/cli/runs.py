"""check, plan, run, resume: from a spec to a run."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from batchscore.errors import QUARANTINED, Refused
from batchscore.observe.text import plain

if TYPE_CHECKING:
    from batchscore.plan import Plan
    from batchscore.ports import Executor, RunRow

SPEC = click.argument("spec", type=click.Path(path_type=Path))


def executor_options(command: click.decorators.FC) -> click.decorators.FC:
    """Where attempts run."""
    for option in (
        click.option("--inline", is_flag=True, help="Run in this process, without Dask."),
        click.option("--workers", type=click.IntRange(min=1), help="Size of the local cluster.  [default: one per core]"),
        click.option("--scheduler", metavar="ADDRESS", help="Use a running Dask scheduler (tcp://… or tls://…)."),
        click.option("--insecure", is_flag=True, help="Accept a scheduler on another host without TLS."),
    ):
        command = option(command)
    return command


@click.command()
@SPEC
def check(spec: Path) -> int:
    """Find every mistake in SPEC, its feature set, bundle and inputs. Writes nothing."""
    from batchscore.planner import make_plan
    from batchscore.spec import read_spec

    read = read_spec(spec)
    if read.as_of is not None:
        click.echo(f"{plain(spec.name)}: no mistakes; plan {make_plan(read).digest[:12]}")
        return 0
    from batchscore.cli.schedule import today

    make_plan(read.at((today(read),), release=read.release))
    click.echo(f"{plain(spec.name)}: no mistakes; its as-of is said by batchscore backfill or batchscore sweep")
    return 0


@click.command()
@SPEC
@click.option("--json", "as_json", is_flag=True, help="Print the whole plan as JSON.")
def plan(spec: Path, *, as_json: bool) -> int:
    """Show what a run of SPEC would do, and its hash. Writes nothing."""
    made = _plan(spec)
    if as_json:
        click.echo(made.model_copy(update={"feature_set": ""}).model_dump_json(indent=2, exclude={"feature_set"}))
        return 0
    from batchscore.observe.terminal import show_plan

    show_plan(made, Console())
    click.echo(f"\nnext: batchscore run {plain(str(spec))} --plan {made.digest[:12]}")
    return 0


@click.command()
@SPEC
@click.option("--plan", "approved", metavar="HASH", help="Run only this plan: refuse when a pinned part has changed since.")
@click.option("--again", is_flag=True, help="The plan was run before: run its next generation.")
@executor_options
def run(  # noqa: PLR0913 (a command's options are its arguments)
    spec: Path, *, approved: str | None, again: bool, inline: bool, workers: int | None, scheduler: str | None, insecure: bool
) -> int:
    """Do what the plan of SPEC says. An unfinished run of the same plan is resumed; a finished one is only reported."""
    made = _plan(spec)
    if approved is not None and not (len(approved) >= MIN_HASH and made.digest.startswith(approved)):
        raise Refused(
            "plan_changed",
            f"the plan is now {made.digest[:12]}, not {plain(approved)}",
            where=f"run {spec.name}",
            remedy=f"look at what changed (batchscore plan {spec}), then approve that hash",
        )
    return run_plan(
        made, again=again, executor=open_executor(inline=inline, workers=workers, scheduler=scheduler, insecure=insecure)
    )


MIN_HASH = 8


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option("--store", type=click.Path(path_type=Path), default=Path("store"), show_default=True, help="The store's folder.")
@executor_options
def resume(run_id: str, store: Path, *, inline: bool, workers: int | None, scheduler: str | None, insecure: bool) -> int:
    """Go on with RUN where it was stopped or killed; refused when a pinned part has changed since."""
    from batchscore.planner import make_plan
    from batchscore.store import open_reader

    row = open_reader(store).run(run_id)
    made = make_plan(row.plan.spec)
    if changed := row.plan.differences(made.pinned):
        raise Refused(
            "plan_changed",
            f"changed since {row.run_id} was planned: {', '.join(changed)}",
            where=row.run_id,
            remedy="put it back, or start a new run of the spec",
        )
    return run_plan(
        made, again=False, executor=open_executor(inline=inline, workers=workers, scheduler=scheduler, insecure=insecure)
    )


def run_plan(made: Plan, *, again: bool, executor: AbstractContextManager[Executor]) -> int:
    """Walk a plan with progress on stderr and say how it ended."""
    return tell_end(walk_plan(made, again=again, executor=executor))


def walk_plan(made: Plan, *, again: bool, executor: AbstractContextManager[Executor]) -> RunRow:
    """Walk a plan with progress on stderr; its run as it ended."""
    from batchscore.features.feature_set import FeatureSet
    from batchscore.observe.progress import ProgressObserver
    from batchscore.pipeline import run as walk
    from batchscore.store import open_store

    kind = FeatureSet.thaw(made.feature_set).account_id
    console = Console(stderr=True)
    with stop_on_signal() as stop, executor as opened, ProgressObserver(console) as observer:
        return walk(
            made, executor=opened, store=open_store(Path(made.spec.store), kind), observer=observer, again=again, stop=stop
        )


def tell_end(row: RunRow) -> int:
    """One line on how the run stands and the command that comes next; the exit code."""
    from batchscore.store import open_reader

    store = row.plan.spec.store
    aside = open_reader(Path(store)).quarantined(row.run_id)
    for partition in aside:
        click.echo(plain(f"quarantined: {partition.stage} {partition.number}: {partition.message}"), err=True)
    click.echo(f"{row.run_id} {row.state}" + (f", {len(aside)} partition(s) quarantined" if aside else ""))
    if aside:
        click.echo(f"mend the cause, then: batchscore retry {row.run_id} --quarantined --store {plain(store)}")
    click.echo(f"next: batchscore report {row.run_id} --store {plain(store)}\n      batchscore queue --store {plain(store)}")
    return QUARANTINED if aside else 0


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set: what is in flight is drained. A second Ctrl-C stops at once."""
    stop = threading.Event()

    def ask(_signal: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _plan(spec: Path) -> Plan:
    from batchscore.planner import make_plan
    from batchscore.spec import read_spec

    return make_plan(read_spec(spec))


@contextmanager
def open_executor(
    *, inline: bool = False, workers: int | None = None, scheduler: str | None = None, insecure: bool = False
) -> Iterator[Executor]:
    """The executor that a command's options ask for; what it opened is closed with the block."""
    from batchscore.attempt import attempt

    if sum((inline, workers is not None, scheduler is not None)) > 1:
        msg = "--inline, --workers and --scheduler exclude each other"
        raise click.UsageError(msg)
    if inline:
        from batchscore.executors.inline import InlineExecutor

        yield InlineExecutor(attempt)
        return
    from batchscore.executors.connect import local_cluster, remote_cluster

    opened = remote_cluster(attempt, scheduler, insecure=insecure) if scheduler else local_cluster(attempt, n_workers=workers)
    with opened as executor:
        yield executor
