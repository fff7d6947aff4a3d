"""The walk of a plan, as `run` and every command like it has it: where attempts run, who hears, how it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchscore.cli.options import FiniteRange
from batchscore.cli.stopping import stop_on_signal
from batchscore.cli.telling import Telling, telling_options
from batchscore.command import command, word
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


class _Minutes(click.ParamType[timedelta]):
    """How long, in minutes."""

    name = "minutes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """The text as a duration; not even a wait that begins is allowed with 0."""
        return timedelta(minutes=FiniteRange(min=0, max=MAX_MINUTES).convert(value, param, ctx))


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
        warn(made)
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
        click.echo(plain(f"mend the cause, then: {command('retry', row.run_id, store, '--quarantined')}"))
    click.echo(plain(f"next: {command('report', row.run_id, store)}"))
    click.echo(plain(f"      batchscore queue --store {word(store)}"))
    return QUARANTINED if aside else 0


def _tell_set_aside(row: RunRow, reader: StoreReader) -> None:
    from batchscore.layout import Definitions
    from batchscore.proving import prove_run

    proof = prove_run(row.plan, Definitions.of(row.plan), reader, row.run_id)
    if proof.n_rows_rejected or proof.n_orphans:
        counts = f"{proof.n_rows_rejected:,} rows rejected on reading, {proof.n_orphans:,} events of unknown accounts"
        click.echo(plain(f"set aside: {counts} → {command('status', row.run_id, row.plan.spec.store, '--rejected')}"))


def warn(made: Plan) -> None:
    """What the plan warns of, on stderr."""
    for warning in made.warnings:
        click.echo(f"warning: {plain(warning)}", err=True)


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
