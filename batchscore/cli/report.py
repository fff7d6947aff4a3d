"""report: what a run did, at any moment of it, as a page or as JSON; and what differs between two runs."""

from __future__ import annotations

from pathlib import Path

import click

from batchscore.cli.options import JSON, RUN, STORE
from batchscore.observe.text import plain


class _RunOrDiff(click.Group):
    """``report RUN`` and ``report diff A B``: a run id never looks like the name of a command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_RunOrDiff, subcommand_metavar="RUN | diff A B")
def report() -> None:
    """Report on RUN, at any moment of it, or on what differs between runs A and B.

    `report RUN [--store FOLDER] [--html FILE | --json]` writes one HTML page that needs nothing else and says where, or
    prints all of it as JSON. Only reads the store.
    """


@report.command("run", hidden=True)
@RUN
@STORE
@JSON
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), help="Write the page there.  [default: STORE/reports/RUN.html]"
)
def of_run(run_id: str, store: Path, html: Path | None, *, as_json: bool) -> int:
    """Write the report of RUN as one HTML page, or print it as JSON."""
    from batchscore.operations.report import report_of
    from batchscore.store import open_reader

    if as_json and html is not None:
        msg = "--json and --html exclude each other"
        raise click.UsageError(msg)
    made = report_of(open_reader(store), run_id, str(store))
    if as_json:
        click.echo(made.model_dump_json(indent=2))
        return 0
    from batchscore.operations.report import write_page
    from batchscore.report.words import headline

    path = write_page(made, html or store / "reports" / f"{run_id}.html")
    click.echo(plain(headline(made).text))
    for gap in made.gaps:
        click.echo(plain(f"could not be read: {gap}"), err=True)
    click.echo(plain(f"report: {path}"))
    return 0


@report.command("diff")
@click.argument("run_a", metavar="A")
@click.argument("run_b", metavar="B")
@STORE
@JSON
def diff(run_a: str, run_b: str, store: Path, *, as_json: bool) -> int:
    """Show what differs between runs A and B: pinned parts, stages, scores and flags."""
    from batchscore.operations.difference import difference
    from batchscore.store import open_reader

    found = difference(open_reader(store), run_a, run_b, str(store))
    if as_json:
        click.echo(found.model_dump_json(indent=2))
        return 0
    from rich.console import Console

    from batchscore.observe.difference import show_difference

    show_difference(found, Console())
    return 0
