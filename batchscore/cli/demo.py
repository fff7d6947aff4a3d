"""demo: the whole story in one command."""

from __future__ import annotations

from pathlib import Path

import click

from batchscore.cli.options import JSON


@click.command()
@click.option(
    "--accounts", type=click.IntRange(100, 100_000_000), help="Simulate a world of so many accounts.  [default: real mail]"
)
@click.option("--days", type=click.IntRange(20, 3_000), default=60, show_default=True, help="Days of the simulated world.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Equal seeds give equal worlds.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to write.  [default: ./demo, or ./demo-N for N accounts]")
@click.option("--again", is_flag=True, help="Run the next generation of a finished run.")
@click.option("--inline", is_flag=True, help="Run in this process, without Dask.")
@click.option("--workers", type=click.IntRange(min=1), help="Size of the local cluster.  [default: one per core]")
@JSON
def demo(  # noqa: PLR0913 (a command's options are its arguments)
    *,
    accounts: int | None,
    days: int,
    seed: int,
    folder: Path | None,
    again: bool,
    inline: bool,
    workers: int | None,
    as_json: bool,
) -> int:
    """Score real mail (or a simulated world) from raw events to a review queue, and compare with the truth."""
    from rich.console import Console

    from batchscore.cli.runs import open_executor, stop_on_signal, tell_end
    from batchscore.demo.story import HowToRun, World, tell

    how = HowToRun(executor=lambda: open_executor(inline=inline, workers=workers), stop=stop_on_signal, again=again)
    folder = folder or Path("demo" if accounts is None else f"demo-{accounts}")
    status = tell(World(accounts=accounts, days=days, seed=seed), folder, how, Console(stderr=as_json))
    if not as_json:
        return status
    from batchscore.spec import read_spec
    from batchscore.store import open_reader

    return tell_end(open_reader(Path(read_spec(folder / "spec.yaml").store)).runs(limit=1)[0], as_json=True)
