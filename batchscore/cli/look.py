"""status, watch, clean: what stands in a store. All but clean only read."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from batchscore.cli.options import JSON, OPTIONAL_RUN, RUN, STORE
from batchscore.errors import BUG, DONE, HELD, INTERRUPTED, QUARANTINED
from batchscore.observe.text import plain

if TYPE_CHECKING:
    from batchscore.cli.outputs import RunStatus
    from batchscore.ports import RunRow, StoreReader
    from batchscore.report.proof import Proof

WATCH_EVERY_S = 1.0


@click.command()
@OPTIONAL_RUN
@STORE
@click.option("--rejected", is_flag=True, help="What RUN set aside by row: counts by file and code, the first rows.")
@click.option("--quarantined", is_flag=True, help="The partitions that RUN set aside, and why.")
@JSON
def status(run_id: str | None, store: Path, *, rejected: bool, quarantined: bool, as_json: bool) -> int:
    """Show the runs of a store, or the stages, quarantine and proof of RUN."""
    from batchscore.store import open_reader

    if rejected or quarantined:
        from batchscore.cli.retry import show_quarantined, show_rejected

        if run_id is None or (rejected and quarantined):
            msg = "--rejected and --quarantined are asked of one RUN, one at a time"
            raise click.UsageError(msg)
        (show_rejected if rejected else show_quarantined)(run_id, store, as_json=as_json)
        return 0

    reader = open_reader(store)
    if run_id is None:
        runs = reader.runs()
        if as_json:
            from batchscore.cli.outputs import RunShown, RunsShown

            click.echo(RunsShown(runs=tuple(map(RunShown.of, runs))).model_dump_json(indent=2))
        else:
            from batchscore.observe.terminal import show_runs

            show_runs(runs, Console())
        return 0
    row = reader.run(run_id)
    proof = _prove(row, reader) if row.state == "finished" else None
    if as_json:
        click.echo(_status(row, reader, proof).model_dump_json(indent=2))
        return 0
    from batchscore.observe.terminal import show_accepted, show_holds, show_proof, show_stages
    from batchscore.operations.following import following

    console = Console()
    show_stages(row, reader.stages(run_id), console)
    show_accepted(reader.accepted(run_id), console)
    show_holds(reader.holds(run_id), console)
    for partition in reader.quarantined(run_id):
        click.echo(plain(f"quarantined: {partition.stage} {partition.number}: {partition.message}"))
    if proof is not None:
        show_proof(proof, console)
    if next_command := following(row, reader, store):
        click.echo(plain(f"next: {next_command}"))
    return 0


def _prove(row: RunRow, reader: StoreReader) -> Proof:
    from batchscore.layout import Definitions
    from batchscore.proving import prove_run

    return prove_run(row.plan, Definitions.of(row.plan), reader, row.run_id)


def _status(row: RunRow, reader: StoreReader, proof: Proof | None) -> RunStatus:
    from batchscore.cli.outputs import RunShown, RunStatus

    stages, aside = reader.stages(row.run_id), reader.quarantined(row.run_id)
    return RunStatus(
        run=RunShown.of(row),
        stages=stages,
        quarantined=aside,
        holds=reader.holds(row.run_id),
        accepted=reader.accepted(row.run_id),
        proof=proof,
    )


@click.command()
@RUN
@STORE
@JSON
def watch(run_id: str, store: Path, *, as_json: bool) -> int:
    """Follow RUN from any terminal until it ends. Reads only; leaving (Ctrl-C) does not touch the run.

    Ends as the run did, and with the command that comes next: 0 finished, 3 with quarantine, 4 held, paused or cancelled, 5
    interrupted or its driver gone, 1 failed.

    With --json each look is one line, so that a program may read them as they come.
    """
    from batchscore.observe.terminal import show_holds, show_stages
    from batchscore.operations.following import following
    from batchscore.store import open_reader

    reader = open_reader(store)
    console = Console()
    while True:
        row = reader.run(run_id)
        running = row.state == "running" and not row.driver_gone
        if as_json:
            click.echo(_status(row, reader, None).model_dump_json())
        else:
            if running and console.is_terminal:
                console.clear()
            show_stages(row, reader.stages(run_id), console)
            show_holds(reader.holds(run_id) if row.state == "held" else (), console)
        if not running:
            gone = "its driver is gone; everything committed is kept. " if row.driver_gone else ""
            if next_command := following(row, reader, store):
                click.echo(plain(f"{gone}next: {next_command}"), err=as_json)
            return _exit_code(row, reader)
        time.sleep(WATCH_EVERY_S)


def _exit_code(row: RunRow, reader: StoreReader) -> int:
    """As README has them, of a run that nobody drives."""
    aside = bool(reader.quarantined(row.run_id))
    ends = {"finished": DONE, "failed": BUG, "held": HELD, "paused": HELD, "cancelled": HELD}
    return QUARANTINED if aside and row.state in {"finished", "failed"} else ends.get(row.state, INTERRUPTED)


@click.command()
@STORE
@click.option(
    "--grace-hours",
    type=click.IntRange(min=0),
    default=24,
    show_default=True,
    help="Leave files younger than this, and of the last day those since a run that is under way was opened.",
)
@click.option("--apply", is_flag=True, help="Delete them.  [default: only show]")
@JSON
def clean(store: Path, grace_hours: int, *, apply: bool, as_json: bool) -> int:
    """Show, or delete, the files of a store that no run refers to (left by attempts that lost, and drivers that died)."""
    from batchscore.store import open_cleaner

    paths = open_cleaner(store).clean(grace=timedelta(hours=grace_hours), apply=apply)
    if as_json:
        from batchscore.cli.outputs import Cleaned

        click.echo(Cleaned(deleted=apply, paths=tuple(map(str, paths))).model_dump_json(indent=2))
        return 0
    for path in paths:
        click.echo(plain(str(path)))
    click.echo(f"{len(paths)} file(s) {'deleted' if apply else 'would be deleted: --apply deletes them'}")
    return 0
