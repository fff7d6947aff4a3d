"""doctor: what is wrong here, and its fix."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import click

from batchscore.cli.options import JSON
from batchscore.errors import REFUSED, Refused


@click.command()
@click.option("--spec", "spec_path", type=click.Path(path_type=Path), help="Also look at what this run spec names.")
@click.option("--store", type=click.Path(path_type=Path), help="The store's folder.  [default: the spec's, or ./store]")
@click.option("--scheduler", metavar="ADDRESS", help="Also look at a running Dask cluster.")
@click.option("--insecure", is_flag=True, help="Accept a scheduler on another host without TLS.")
@click.option("--workers", type=click.IntRange(min=1), help="Judge cores and memory for so many.  [default: one per core]")
@JSON
def doctor(
    *, spec_path: Path | None, store: Path | None, scheduler: str | None, insecure: bool, workers: int | None, as_json: bool
) -> int:
    """Look at this machine, a spec, a store and a cluster: what is wrong, and its fix. Changes nothing.

    Exit code 0 when nothing fails, 2 when something does; warnings change nothing.
    """
    from batchscore.operations.doctor import Patient, diagnose
    from batchscore.spec import read_spec

    spec = None
    with suppress(Refused):  # a check of its own says what is wrong with it
        spec = read_spec(spec_path) if spec_path else None
    place = store or (Path(spec.store) if spec else Path("store"))
    found = diagnose(
        Patient(
            spec_path=spec_path,
            spec=spec,
            store=place,
            scheduler=scheduler,
            insecure=insecure,
            n_workers=workers or os.cpu_count() or 1,
        )
    )
    if as_json:
        click.echo(found.model_dump_json(indent=2))
    else:
        from rich.console import Console

        from batchscore.observe.terminal import show_diagnosis

        show_diagnosis([(each.check, each.level, each.found, each.remedy) for each in found.findings], Console())
    return 0 if found.healthy else REFUSED
