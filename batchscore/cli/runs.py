"""check, plan, run, resume: from a spec to a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from batchscore.cli.options import JSON, RUN, SPEC, STORE
from batchscore.cli.walking import Terms, executor_options, run_plan, tell_end, warn
from batchscore.command import word
from batchscore.observe.text import plain

if TYPE_CHECKING:
    from batchscore.cli.walking import OpenExecutor
    from batchscore.plan import Plan


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
        from batchscore.cli.clock import today

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
    warn(made)
    click.echo(f"{plain(spec.name)}: no mistakes; {said}")
    return 0


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
    warn(made)
    click.echo(plain(f"\nnext: batchscore run {word(spec)} --plan {made.digest[:12]}"))
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
        accepted = hold_to(made, approved, str(spec), accepts=accepts, by=_who(by))
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
    from batchscore.operations.control import is_only_reported, withdraw_cancel
    from batchscore.planner import plan_again
    from batchscore.store import open_reader

    reader, who = open_reader(store), _who(by)
    stood = reader.run(run_id)
    if is_only_reported(stood, reader):
        return tell_end(stood, as_json=as_json)
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


def _plan(spec: Path) -> Plan:
    from batchscore.planner import make_plan
    from batchscore.spec import read_spec

    return make_plan(read_spec(spec))
