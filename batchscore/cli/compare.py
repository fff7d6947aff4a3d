"""compare: what another run, or another bundle, would put before the reviewers at equal budget, and why."""

from __future__ import annotations

from pathlib import Path

import click

from batchscore.cli.options import JSON, RUN, STORE
from batchscore.observe.text import plain


@click.command()
@RUN
@click.argument("other", metavar="[RUN_B]", required=False)
@click.option("--bundle", metavar="NAME|PATH", help="A shadow of RUN by its name, or a bundle that is scored now and here.")
@click.option("--budget", type=click.IntRange(1, 10_000_000), help="Accounts of each as-of.  [default: as many as RUN selected]")
@click.option("--sample", "n_sample", type=click.IntRange(0, 500), default=20, show_default=True, help="How many disagreements.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Also write one page there, without account ids.")
@STORE
@JSON
def compare(  # noqa: PLR0913 (an option each)
    run_id: str,
    other: str | None,
    bundle: str | None,
    budget: int | None,
    n_sample: int,
    *,
    html: Path | None,
    store: Path,
    as_json: bool,
) -> int:
    """Compare RUN with RUN_B, or with another bundle on RUN's frozen input: who is new, dropped or moved, and why.

    Both select as many accounts of each as-of, without a threshold, given the same open flags. Reasons are compared by what they
    gave; precision is of what people decided. Only reads the store.

    A bundle by its path is scored here, by one process. Of a large run name it in the spec, {path: candidate, shadow: true}, and
    run that: workers score it beside what stands, and its name compares it.
    """
    from batchscore.operations.compare import ComparisonLimits, compare_bundle, compare_runs
    from batchscore.store import open_reader

    if (other is None) == (bundle is None):
        msg = "name one thing to compare with: RUN_B, or --bundle"
        raise click.UsageError(msg)
    reader = open_reader(store)
    row, asked = reader.run(run_id), ComparisonLimits(budget=budget, n_sample=n_sample)
    if bundle is not None:
        found = compare_bundle(reader, row, bundle, asked)
    else:
        found = compare_runs(reader, row, reader.run(str(other)), asked)
    if html is not None:
        from batchscore.operations.report import write_html
        from batchscore.report.comparison_page import comparison_page

        write_html(comparison_page(found, plain=plain), html)
    if as_json:
        click.echo(found.model_dump_json(indent=2))
        return 0
    from rich.console import Console

    from batchscore.observe.comparison import show_comparison

    show_comparison(found, Console())
    if html is not None:
        click.echo(plain(f"page: {html}"))
    return 0
