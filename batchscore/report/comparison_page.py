"""The comparison as one HTML page, drawn as a report's is. It names no account: a page is passed on. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from batchscore.report.charts import shares
from batchscore.report.comparison import Comparison, Why
from batchscore.report.drawing import draw
from batchscore.report.page import day

MAX_DATES: Final = 40
MAX_CODES: Final = 20


def comparison_page(found: Comparison, *, plain: Callable[[str], str]) -> str:
    """The whole page as text. ``plain`` shows control characters as text."""
    filters: dict[str, Callable[..., object]] = {
        "count": lambda n: f"{n:,}",
        "day": day,
        "signed": lambda value: "–" if value is None else f"{value:+.3f}",
        "score": lambda value: "–" if value is None else f"{value:.4f}",
        "percent": lambda share: "–" if share is None else f"{100 * share:.1f} %",
    }
    dates = found.dates[-MAX_DATES:]
    given = {
        "c": found,
        "headline": headline(found),
        "dates": dates,
        "n_dates_left": len(found.dates) - len(dates),
        "why": [(why, list(zip(why.codes, _lengths(why), strict=False))) for why in found.why],
        "sides": (("A", found.a, found.precision_a), ("B", found.b, found.precision_b)),
    }
    return draw("comparison.html.jinja", given, filters, plain=plain)


def headline(found: Comparison) -> str:
    """The most important thing, in a sentence."""
    n_b, n_new = sum(pair.n_b for pair in found.dates), sum(pair.n_new for pair in found.dates)
    if not n_b:
        return "B selects nobody at this budget: there is nothing to compare."
    if not n_new and not sum(pair.n_dropped for pair in found.dates):
        return f"Both select the same {n_b:,} accounts at equal budget."
    share = 100 * n_new / n_b
    return f"At equal budget {n_new:,} of {n_b:,} that B selects are new: {share:.0f} % of the reviewers' work would change."


def _lengths(why: Why) -> Sequence[float]:
    """Of the bars: the size of each code's difference."""
    return shares([abs(pair.difference) for pair in why.codes[:MAX_CODES]])
