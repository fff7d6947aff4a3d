"""backfill, sweep: a spec at as-ofs that the command says. Each is spec → plan → the same walk as `run`."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from batchscore.cli.clock import today
from batchscore.cli.options import JSON, SPEC
from batchscore.cli.walking import Terms, executor_options, run_plan, tell_end
from batchscore.errors import DONE, QUARANTINED, Refused
from batchscore.observe.text import plain

if TYPE_CHECKING:
    from batchscore.cli.walking import OpenExecutor
    from batchscore.operations.sweep import Due
    from batchscore.spec import AsOfRange, RunSpec
    from batchscore.store import Ledger


class _Moment(click.ParamType[datetime]):
    """A date, or a time with a zone: as in a spec."""

    name = "date"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        from batchscore.values import parse_moment

        try:
            return parse_moment(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _Every(click.ParamType[timedelta]):
    """A step of time: as in a spec, and not 0."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        from batchscore.values import parse_duration

        try:
            every = parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return every or self.fail("must be longer than 0", param, ctx)


@click.command()
@SPEC
@click.option("--from", "first", type=_Moment(), required=True, help="The first as-of, such as 2026-01-01.")
@click.option("--to", "last", type=_Moment(), required=True, help="The last as-of, itself included.")
@click.option("--every", type=_Every(), default="1d", show_default=True, help="One as-of for each such step.")
@click.option(
    "--release", type=click.Choice(["none", "latest"]), default="none", show_default=True, help="Release the last as-of's flags."
)
@click.option("--again", is_flag=True, help="The plan was run before: run its next generation.")
@JSON
@executor_options
def backfill(  # noqa: PLR0913 (a command's options are its arguments)
    spec: Path,
    *,
    first: datetime,
    last: datetime,
    every: timedelta,
    release: Literal["none", "latest"],
    again: bool,
    as_json: bool,
    executor: OpenExecutor,
    terms: Terms,
) -> int:
    """Run SPEC over past as-ofs, in the place of those it names. Releases nothing unless told to."""
    from batchscore.planner import make_plan
    from batchscore.spec import read_spec

    read = read_spec(spec)
    as_ofs = _range(first, last, every)
    _refuse_part_grains(read, every)
    _refuse_ahead(read, last, f"backfill of {read.name}", "--to")
    made = make_plan(read.at(as_ofs, release=release))
    row = run_plan(made, again=again, executor=executor(), terms=terms)
    return tell_end(row, as_json=as_json)


@click.command()
@SPEC
@click.option("--as-of", type=_Moment(), help="The as-of.  [default: the last whole day in UTC]")
@click.option("--every", type=_Every(), default="1d", show_default=True, help="How often it is run: what counts as missed.")
@click.option("--catch-up", is_flag=True, help="First score the as-ofs that were missed, simulated: nothing of them is released.")
@click.option(
    "--reprocess",
    type=click.Choice(["none", "failed", "all"]),
    default="none",
    show_default=True,
    help="If this as-of was swept already: leave it, redo what was quarantined or rejected, or run its next generation.",
)
@JSON
@executor_options
def sweep(  # noqa: PLR0913 (a command's options are its arguments)
    spec: Path,
    *,
    as_of: datetime | None,
    every: timedelta,
    catch_up: bool,
    reprocess: Literal["none", "failed", "all"],
    as_json: bool,
    executor: OpenExecutor,
    terms: Terms,
) -> int:
    """Score every account of SPEC as of the last whole day, and release its flags. May run late, twice, or after a crash."""
    from batchscore.features.feature_set import FeatureSet
    from batchscore.operations.sweep import due, refuse_behind, say_staleness, swept
    from batchscore.planner import make_plan
    from batchscore.spec import read_spec
    from batchscore.store import open_store

    read = read_spec(spec)
    as_of = _not_ahead(read, as_of)
    made = make_plan(read.at((as_of,), release="latest"))
    store = open_store(Path(read.store), FeatureSet.thaw(made.feature_set).account_id)
    found = due(read.name, store.reader().sweeps(read.name), as_of, every)
    if not as_json:
        _tell_due(found, catch_up=catch_up)
    if found.standing is not None and not _is_redone(store, found.standing, reprocess):
        row = store.reader().run(found.standing)
        if row.undo_begun_at is not None and not as_json:
            click.echo("it was undone since; to sweep this as-of once more, on purpose: --reprocess all", err=True)
    else:
        refuse_behind(read.name, found)
        if catch_up and found.missed:
            missed = make_plan(read.at(_range(found.missed[0], found.missed[-1], every), release="none"))
            run_plan(missed, again=False, executor=executor(), terms=terms)
        store.begin_sweep(made)
        row = run_plan(made, again=reprocess != "none", executor=executor(), terms=terms)
    ended = swept(row, found, store.reader())
    if as_json:
        click.echo(ended.model_dump_json(indent=2))
        return QUARANTINED if ended.n_quarantined else DONE
    status = tell_end(row, as_json=False)
    if ended.watermark is not None and ended.staleness is not None:
        click.echo(f"watermark {ended.watermark:%Y-%m-%d}: all input known before it has been scored")
        click.echo(say_staleness(ended.staleness))
    return status


def _not_ahead(spec: RunSpec, as_of: datetime | None) -> datetime:
    if as_of is None:
        return today(spec)
    _refuse_ahead(spec, as_of, f"sweep of {spec.name}", "--as-of")
    return as_of


def _refuse_ahead(spec: RunSpec, as_of: datetime, where: str, option: str) -> None:
    latest = today(spec)
    if as_of > latest:
        raise Refused(
            "as_of_ahead",
            f"{as_of:%Y-%m-%d} is not over: what counts for it is not all there",
            where=where,
            remedy=f"the last whole day is {latest:%Y-%m-%d}: {option} {latest:%Y-%m-%d}"
            + (", or leave it out" if option == "--as-of" else ""),
        )


def _refuse_part_grains(spec: RunSpec, every: timedelta) -> None:
    """One mistake in the command line, in the place of one for each as-of it makes."""
    from batchscore.features.feature_set import read_feature_set

    grain = read_feature_set(Path(spec.feature_set)).grain
    if every % grain:
        word = "days" if grain == timedelta(days=1) else "hours"
        msg = f"--every is no whole number of {word}, and the feature set's grain is one of them"
        raise click.UsageError(msg)


def _range(first: datetime, last: datetime, every: timedelta) -> AsOfRange:
    """As `from`, `to` and `every` of a spec, and refused as they are there."""
    from pydantic import ValidationError

    from batchscore.spec import AsOfRange

    try:
        return AsOfRange(first=first, last=last, every=every)
    except ValidationError as error:
        what = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise click.UsageError(what.replace("'to'", "--to").replace("'from'", "--from").replace("'every'", "--every")) from None


def _is_redone(store: Ledger, run_id: str, reprocess: str) -> bool:
    """Whether ``--reprocess`` asks for an as-of that was swept already by that run."""
    from batchscore.operations.rejects import n_rejected

    reader = store.reader()
    return reprocess == "all" or (reprocess == "failed" and bool(reader.quarantined(run_id) or n_rejected(reader, run_id)))


def _tell_due(found: Due, *, catch_up: bool) -> None:
    came = f"watermark {found.watermark:%Y-%m-%d}" if found.watermark else "the first of this spec"
    click.echo(f"sweep as of {found.as_of:%Y-%m-%d}; {came}", err=True)
    if found.standing is not None:
        click.echo(plain(f"this as-of was swept already, by {found.standing}"), err=True)
    if found.missed:
        first, last = found.missed[0], found.missed[-1]
        missed = f"{first:%Y-%m-%d}" if first == last else f"{first:%Y-%m-%d} … {last:%Y-%m-%d}"
        covered = "this sweep scores every account as of now, which covers them (--catch-up simulates them first)"
        how = "they are simulated first" if catch_up else covered
        click.echo(f"{len(found.missed)} as-of(s) were missed ({missed}): {how}", err=True)
