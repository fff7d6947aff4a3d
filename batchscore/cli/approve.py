"""approve: a person lets a held run go on."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from batchscore.cli.options import JSON, RUN, STORE
from batchscore.command import command
from batchscore.observe.text import plain


@click.command()
@RUN
@click.option("--by", required=True, metavar="NAME", help="Who approves: it stands in the ledger and in reports.")
@click.option("--reason", "because", default="", metavar="TEXT", help="Why the run may go on.")
@STORE
@JSON
def approve(run_id: str, *, by: str, because: str, store: Path, as_json: bool) -> int:
    """Let a held RUN go on: approve what it is held for, as `status RUN` shows it. Other findings hold it again. Runs nothing."""
    from batchscore.operations.approve import approve_hold, mistake_of

    by, because = by.strip(), because.strip()
    if mistake := mistake_of(by, because):
        raise click.UsageError(mistake)
    held = approve_hold(store, run_id, by=by, because=because)
    if as_json:
        click.echo(held.model_dump_json(indent=2))
        return 0
    from batchscore.observe.terminal import show_holds

    show_holds([held], Console())
    click.echo(plain(f"next: {command('resume', run_id, store)}"))
    return 0
