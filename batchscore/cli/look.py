"""status, watch, clean: what stands in a store. All but clean only read."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from batchscore.cli.options import JSON, OPTIONAL_RUN, RUN, STORE
from batchscore.errors import INTERRUPTED
from batchscore.observe.text import plain

if TYPE_CHECKING:
    from batchscore.cli.outputs import RunStatus
    from batchscore.hold import HoldRow
    from batchscore.ports import RunRow, StoreReader
    from batchscore.report.proof import Proof

WATCH_EVERY_S = 1.0
_ANEW = (
    "next: mend the input as the reason says, then: batchscore run SPEC (a mended input is a new plan; what is whole is reused)"
)


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

    console = Console()
    show_stages(row, reader.stages(run_id), console)
    show_accepted(reader.accepted(run_id), console)
    holds = reader.holds(run_id)
    show_holds(holds, console)
    aside = reader.quarantined(run_id)
    for partition in aside:
        click.echo(plain(f"quarantined: {partition.stage} {partition.number}: {partition.message}"))
    if proof is not None:
        show_proof(proof, console)
    else:
        following = _next(row, holds, set_aside=bool(aside))
        click.echo(f"next: {following} --store {plain(str(store))}" if not row.failed_on_input else _ANEW)
    return 0


def _next(row: RunRow, holds: Sequence[HoldRow], *, set_aside: bool) -> str:
    if row.state == "held" and holds and holds[-1].approved_at is None:
        return f"batchscore approve {row.run_id} --by NAME"
    if row.request is not None and row.request.wish == "paused":
        return f"batchscore continue {row.run_id}"
    retried = row.state == "failed" and set_aside
    return f"batchscore retry {row.run_id} --quarantined" if retried else f"batchscore resume {row.run_id}"


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

    Ends with 5, and the command that resumes, when the driver of the run is gone.

    With --json each look is one line, so that a program may read them as they come.
    """
    from batchscore.observe.terminal import show_holds, show_stages
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
        if row.driver_gone:
            resume = f"batchscore resume {row.run_id} --store {plain(str(store))}"
            click.echo(f"its driver is gone; everything committed is kept. next: {resume}", err=as_json)
            return INTERRUPTED
        if not running:
            return 0
        time.sleep(WATCH_EVERY_S)


@click.command()
@STORE
@click.option("--grace-hours", type=click.IntRange(min=0), default=24, show_default=True, help="Leave files younger than this.")
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
