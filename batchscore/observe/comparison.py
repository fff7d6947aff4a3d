"""How a comparison looks on a terminal. Text from outside is shown as text."""

from __future__ import annotations

from typing import Final

from rich.console import Console

from batchscore.observe import tables
from batchscore.observe.text import shown_id
from batchscore.report.comparison import CodePair, Comparison, Disagreement, Precision, Side
from batchscore.report.comparison_page import headline

MAX_DATES: Final = 30
MAX_CODES: Final = 12


def show_comparison(found: Comparison, console: Console) -> None:
    """The two sides, each as-of, why they differ, and some of the accounts on which they do."""
    for name, side, precision in (("A", found.a, found.precision_a), ("B", found.b, found.precision_b)):
        tables.line(console, f"{name}  {_side(side)}; {_precision(precision)}")
    tables.line(console, headline(found))
    for note in found.notes:
        tables.line(console, f"note: {note}")
    dates = tables.table("as of", "budget", "both", "new in B", "dropped from A", "at another rank", "median move")
    for pair in found.dates[-MAX_DATES:]:
        moved = "–" if pair.median_move is None else f"{pair.median_move:g}"
        counts = (pair.budget, pair.n_same, pair.n_new, pair.n_dropped, pair.n_moved)
        dates.add_row(f"{pair.as_of_b:%Y-%m-%d}", *map(tables.number, counts), moved)
    console.print(dates)
    if len(found.dates) > MAX_DATES:
        tables.line(console, f"{len(found.dates) - MAX_DATES} earlier as-of dates are not shown: --json has all")
    for why in found.why:
        if why.n:
            what = "new in B" if why.kind == "new" else "dropped from A"
            tables.line(console, f"{what}, on average of {why.n:,}: what each reason gave, by A → by B")
            for code in why.codes[:MAX_CODES]:
                tables.line(console, f"  {code.difference:+.3f}  {code.code}  ({_gave(code)})")
    for one in found.sample:
        _show(one, console)


def _side(side: Side) -> str:
    now = ", scored now" if side.made_now else ""
    return f"{side.bundle} ({side.bundle_digest[:12]}) on run {side.run_id} of {side.spec}{now}"


def _precision(precision: Precision) -> str:
    if precision.precision is None or precision.low is None or precision.high is None:
        return f"selects {precision.n_selected:,}, none decided on yet"
    of = f"{precision.n_confirmed:,} of {precision.n_decided:,} decided on were confirmed"
    return (
        f"selects {precision.n_selected:,}; {of}: {100 * precision.precision:.1f} % "
        f"({100 * precision.low:.1f} to {100 * precision.high:.1f})"
    )


def _gave(pair: CodePair) -> str:
    return " → ".join("–" if value is None else f"{value:+.3f}" for value in (pair.a, pair.b))


def _show(one: Disagreement, console: Console) -> None:
    scores = " → ".join("–" if score is None else f"{score:.4f}" for score in (one.score_a, one.score_b))
    kind = "new" if one.kind == "new" else "dropped"
    tables.line(
        console, f"{kind:<7}  rank {one.rank:>5}  {scores}  account {shown_id(one.account_id)}  as of {one.as_of:%Y-%m-%d}"
    )
    codes = "  ".join(f"{pair.code} {pair.difference:+.2f}" for pair in one.codes)
    if codes:
        tables.line(console, f"         {codes}")
