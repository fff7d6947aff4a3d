"""status, watch, queue, clean: what stands in a store. All but clean only read."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path

import click
from rich.console import Console

from batchscore.observe.text import plain

STORE = click.option(
    "--store", type=click.Path(path_type=Path), default=Path("store"), show_default=True, help="The store's folder."
)
WATCH_EVERY_S = 1.0


@click.command()
@click.argument("run_id", metavar="RUN", required=False)
@STORE
@click.option("--rejected", is_flag=True, help="What RUN set aside by row: counts by file and code, the first rows.")
@click.option("--quarantined", is_flag=True, help="The partitions that RUN set aside, and why.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
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
            click.echo(json.dumps([row.model_dump(mode="json", exclude={"plan"}) for row in runs], indent=2))
        else:
            from batchscore.observe.terminal import show_runs

            show_runs(runs, Console())
        return 0
    row, stages, aside = reader.run(run_id), reader.stages(run_id), reader.quarantined(run_id)
    if as_json:
        said = {
            "run": row.model_dump(mode="json", exclude={"plan"}),
            "stages": [stage.model_dump(mode="json") for stage in stages],
            "quarantined": [partition.model_dump(mode="json") for partition in aside],
        }
        click.echo(json.dumps(said, indent=2))
        return 0
    from batchscore.observe.terminal import show_proof, show_stages

    console = Console()
    show_stages(row, stages, console)
    for partition in aside:
        click.echo(plain(f"quarantined: {partition.stage} {partition.number}: {partition.message}"))
    if row.state == "finished":
        from batchscore.layout import Definitions
        from batchscore.proving import prove_run

        show_proof(prove_run(row.plan, Definitions.of(row.plan), reader, run_id), console)
    else:
        verb = f"retry {row.run_id} --quarantined" if row.state == "failed" and aside else f"resume {row.run_id}"
        click.echo(f"next: batchscore {verb} --store {plain(str(store))}")
    return 0


@click.command()
@click.argument("run_id", metavar="RUN")
@STORE
def watch(run_id: str, store: Path) -> int:
    """Follow RUN from any terminal until it ends. Reads only; leaving (Ctrl-C) does not touch the run."""
    from batchscore.observe.terminal import show_stages
    from batchscore.store import open_reader

    reader = open_reader(store)
    console = Console()
    while (row := reader.run(run_id)).state == "running":
        if console.is_terminal:
            console.clear()
        show_stages(row, reader.stages(run_id), console)
        time.sleep(WATCH_EVERY_S)
    show_stages(row, reader.stages(run_id), console)
    return 0


@click.command()
@STORE
@click.option("--queue", "name", help="Only this review queue.")
@click.option("-n", "limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many flags.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def queue(store: Path, name: str | None, limit: int, *, as_json: bool) -> int:
    """Show the open flags of released runs, best first, with their reasons."""
    from batchscore.store import open_reader

    flags = open_reader(store).queue(name, limit=limit)
    if as_json:
        click.echo(json.dumps([row.model_dump(mode="json") for row in flags], indent=2))
        return 0
    from batchscore.observe.terminal import show_queue

    show_queue(flags, Console())
    if not flags:
        click.echo("the queue is empty")
    return 0


@click.command()
@STORE
@click.option("--grace-hours", type=click.IntRange(min=0), default=24, show_default=True, help="Leave files younger than this.")
@click.option("--apply", is_flag=True, help="Delete them.  [default: only show]")
def clean(store: Path, grace_hours: int, *, apply: bool) -> int:
    """Show, or delete, the files of a store that no run refers to (left by attempts that lost)."""
    from batchscore.store import open_cleaner

    paths = open_cleaner(store).clean(grace=timedelta(hours=grace_hours), apply=apply)
    for path in paths:
        click.echo(plain(str(path)))
    click.echo(f"{len(paths)} file(s) {'deleted' if apply else 'would be deleted: --apply deletes them'}")
    return 0
