"""quality, threshold: how good flags are, from what people decided on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchscore.cli.options import JSON, STORE, FiniteRange

if TYPE_CHECKING:
    from batchscore.report.quality import Share

_OF = click.argument("of", metavar="RUN|NAME")


@click.command()
@_OF
@STORE
@JSON
def quality(of: str, *, store: Path, as_json: bool) -> int:
    """Precision, and recall with what was missed, of a RUN, or of the released runs of the spec of that NAME; from decisions.

    Recall needs a sample below the line (`sample` in the policy). Intervals are of 95 %.
    """
    from batchscore.operations.quality import quality_shown
    from batchscore.store import open_reader

    shown = quality_shown(open_reader(store), of)
    if as_json:
        click.echo(shown.model_dump_json(indent=2))
        return 0
    from batchscore.observe.text import plain

    click.echo(f"flags of {len(shown.runs)} run(s); intervals of 95 %")
    click.echo(f"{'of':<24} {'flags':>8} {'decided':>8}  {'precision':<22} {'recall':<22} {'missed':>9}")
    for line in (shown.every, *shown.models, *shown.segments):
        recall = _said(line.recall) if line.recall else "–"
        missed = "–" if line.missed is None else f"{line.missed:,.0f}"
        of_whom = plain(line.of)[:24]
        click.echo(f"{of_whom:<24} {line.n_flags:>8,} {line.n_decided:>8,}  {_said(line.precision):<22} {recall:<22} {missed:>9}")
    click.echo(f"\n{'accounts of':<24} {'in all':>12} {'decided':>8} {'abusive':>8}")
    for stratum in shown.every.strata:
        click.echo(f"{stratum.name:<24} {stratum.n:>12,} {stratum.n_decided:>8,} {stratum.n_confirmed:>8,}")
    click.echo(f"\n{'score':<24} {'decided':>8} {'mean':>8}  abusive")
    for part in shown.calibration:
        click.echo(f"{part.low:g} … {part.high:<18g} {part.n_decided:>8,} {part.mean_score:>8.4f}  {_said(part.abusive)}")
    for note in shown.notes:
        click.echo(f"note: {note}")
    return 0


@click.command()
@_OF
@click.option("--precision", type=FiniteRange(0, 1), help="At least this share of the flags is right.")
@click.option("--reviews", type=FiniteRange(min=0), help="At most so many flags an as-of.")
@STORE
@JSON
def threshold(of: str, *, precision: float | None, reviews: float | None, store: Path, as_json: bool) -> int:
    """What another threshold would give: recall at a --precision, or at so many --reviews, of a RUN or the runs of a spec's NAME.

    Ends with 4 where no line does what was asked.
    """
    from batchscore.operations.quality import threshold_shown
    from batchscore.store import open_reader

    shown = threshold_shown(open_reader(store), of, precision=precision, reviews=reviews)
    found = shown.chosen is not None or (precision is None and reviews is None)
    if as_json:
        click.echo(shown.model_dump_json(indent=2))
        return 0 if found else 4
    click.echo(f"{'threshold':>10}  {'precision':<22} {'recall':<22} {'reviews':>10}")
    every = shown.lines[:: max(1, len(shown.lines) // 20)]
    for line in (*every, *([shown.chosen] if shown.chosen else [])):
        mark = "  ← the best that does it" if line is shown.chosen else ""
        click.echo(f"{line.threshold:>10.6f}  {_said(line.precision):<22} {_said(line.recall):<22} {line.reviews:>10,.0f}{mark}")
    for note in shown.notes:
        click.echo(f"note: {note}")
    if not found:
        click.echo("no threshold that was looked at does what was asked", err=True)
    return 0 if found else 4


def _said(share: Share) -> str:
    return f"{'–' if share.value is None else format(share.value, '.1%')} ({share.low:.1%} … {share.high:.1%})"
