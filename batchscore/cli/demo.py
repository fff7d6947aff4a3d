"""demo: the whole story in one command."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from batchscore.cli.options import JSON


@click.command()
@click.option(
    "--accounts", type=click.IntRange(100, 100_000_000), help="Simulate a world of so many accounts.  [default: real mail]"
)
@click.option("--days", type=click.IntRange(20, 3_000), default=60, show_default=True, help="Days of the simulated world.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Equal seeds give equal worlds.")
@click.option("--mysql", is_flag=True, help="Accounts, mails, runs and queue on a MariaDB server of its own (needs mariadbd).")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to write.  [default: ./demo; -N for N accounts, -mysql]")
@click.option("--again", is_flag=True, help="Run the next generation of a finished run.")
@click.option("--inline", is_flag=True, help="Run in this process, without Dask.")
@click.option("--workers", type=click.IntRange(min=1), help="Size of the local cluster.  [default: one per core]")
@JSON
def demo(  # noqa: PLR0913 (a command's options are its arguments)
    *,
    accounts: int | None,
    days: int,
    seed: int,
    mysql: bool,
    folder: Path | None,
    again: bool,
    inline: bool,
    workers: int | None,
    as_json: bool,
) -> int:
    """Score real mail (or a simulated world) from raw events to a review queue, and compare with the truth."""
    from rich.console import Console

    from batchscore.cli.stopping import stop_on_signal
    from batchscore.cli.walking import open_executor, tell_end
    from batchscore.demo.story import HowToRun, World, tell

    at_end = partial(tell_end, as_json=True) if as_json else (lambda _row: None)
    how = HowToRun(
        executor=lambda: open_executor(inline=inline, workers=workers), stop=stop_on_signal, again=again, at_end=at_end
    )
    folder = folder or Path("-".join(["demo", *([] if accounts is None else [str(accounts)]), *(["mysql"] if mysql else [])]))
    chosen = World(accounts=accounts, days=days, seed=seed, on_mysql=mysql)
    return tell(chosen, folder, how, Console(stderr=as_json))
