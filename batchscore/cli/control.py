"""pause, continue, cancel: a run is controlled from any host that reaches its store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchscore.cli.options import JSON, RUN, STORE
from batchscore.command import command
from batchscore.observe.text import plain

if TYPE_CHECKING:
    from batchscore.operations.control import Controlled
    from batchscore.request import Wish


def _asking(command: Callable[..., int]) -> Callable[..., int]:
    options = (
        RUN,
        click.option("--by", metavar="NAME", help="Who asks: kept with the run, and in the audit trail.  [default: user@host]"),
        click.option("--reason", "why", default="", metavar="TEXT", help="Why, for whoever looks at it later."),
        STORE,
        JSON,
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@_asking
def pause(run_id: str, *, by: str | None, why: str, store: Path, as_json: bool) -> int:
    """Let RUN rest: what is in flight is finished, then its driver waits, alive and with its lease, until `continue`.

    Of a run that nobody drives: nobody takes it up before `continue`.
    """
    return _ask(run_id, "paused", by=by, why=why, store=store, as_json=as_json)


@click.command("continue")
@_asking
def continue_(run_id: str, *, by: str | None, why: str, store: Path, as_json: bool) -> int:
    """Let a paused RUN go on: its driver does within two seconds; if it has none, `resume` may."""
    return _ask(run_id, None, by=by, why=why, store=store, as_json=as_json)


@click.command()
@_asking
def cancel(run_id: str, *, by: str | None, why: str, store: Path, as_json: bool) -> int:
    """End RUN, wherever its driver is: what is in flight is finished and committed, and nothing more is begun.

    What was released before stays (`undo` takes it back). `resume RUN` goes on after all; nothing else does.
    """
    return _ask(run_id, "cancelled", by=by, why=why, store=store, as_json=as_json)


def _ask(run_id: str, wish: Wish | None, *, by: str | None, why: str, store: Path, as_json: bool) -> int:
    from batchscore.driver import operator_name
    from batchscore.operations.control import ask, mistake_of

    by, why = (by or operator_name()).strip(), why.strip()
    if mistake := mistake_of(by, why):
        raise click.UsageError(mistake)
    found = ask(store, run_id, wish, by=by, why=why)
    click.echo(found.model_dump_json(indent=2) if as_json else plain(_said(found, wish, str(store))))
    return 0


def _said(found: Controlled, wish: Wish | None, store: str) -> str:
    about = f"{found.run_id}: {found.stands}" + (f", {found.told}" if found.told else "")
    if not found.changed:
        return f"{about}; nothing to change" if wish else f"{about}; it is not paused"
    resume, watch = command("resume", found.run_id, store), command("watch", found.run_id, store)
    if wish is None:
        return f"{about}; " + (f"its driver goes on. next: {watch}" if found.driven else f"next: {resume}")
    if found.seen_after_s is not None:
        after = f"\nits driver saw it after {found.seen_after_s:.1f} s, and finishes what is in flight. next: {watch}"
        return about + after
    if found.driven:
        return f"{about}\nits driver has not said yet that it saw: look again. next: {watch}"
    following = command("continue", found.run_id, store) if wish == "paused" else resume
    return f"{about}; nobody drives it, and nobody takes it up before: {following}"
