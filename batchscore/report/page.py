"""The report as one HTML page: no script, no external address, light and dark, bounded however large the run was. Pure.

Everything that varies goes through Jinja2's autoescape, after ``plain`` has made control characters visible. Bars are drawn
as SVG in the page's own colours, which no chart library's output could follow into the dark (and altair with vl-convert is
100 MB and a second for them).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

from batchscore.deadline import lateness_told
from batchscore.digest import KeyDigest
from batchscore.report.charts import HEIGHT, bin_name, histogram_bars, shares, threshold_at
from batchscore.report.drawing import draw
from batchscore.report.drift import in_words
from batchscore.report.histogram import N_BINS, Counts
from batchscore.report.model import DateCoverage, DriftLine, Report
from batchscore.report.proof import AsOfProof
from batchscore.report.words import headline, set_aside

MAX_DATES: Final = 40
MAX_HISTOGRAMS: Final = 12
MAX_FAILURES: Final = 25
MAX_CODES: Final = 40
MAX_BUNDLES: Final = 12
MAX_DRIFTS: Final = 12
MAX_GAPS: Final = 20
MAX_HOLDS: Final = 5
MAX_FINDINGS: Final = 40  # of one hold
_PARTS: Final = ("read", "freeze", "rollup", "features", "contract", "predict", "reasons", "write", "settle", "other")
_THOUSAND: Final = 1_000
_MINUTE_S: Final = 60
_HOUR_S: Final = 3_600
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Some(Generic[T]):
    """What is shown of a long list, and how much is not."""

    shown: Sequence[T]
    n_left: int


def page(report: Report, *, plain: Callable[[str], str]) -> str:
    """The whole page as text, at most about 300 KB. ``plain`` shows control characters as text."""
    filters: dict[str, Callable[..., Any]] = {
        "count": lambda n: "–" if n is None else f"{n:,}",
        "compact": compact,
        "duration": duration,
        "day": day,
        "moment": lambda at: "–" if at is None else f"{at:%Y-%m-%d %H:%M} UTC",
        "n_keys": lambda keys: KeyDigest.parse(keys).n,
        "lanes": lambda keys: keys.partition(":")[2][:16],
        "psi": lambda value: "–" if value is None else f"{value:.3f}",
        "limit": lambda share: "–" if share is None else f"{100 * share:g} %",
        "percent": lambda share: f"{100 * share:.0f} %",
        "psi_words": in_words,
        "bin": bin_name,
    }
    return draw("page.html.jinja", {"r": report, **_folded(report)}, filters, plain=plain)


def _folded(report: Report) -> dict[str, Any]:
    """What the template shows, bounded, with the lengths of its bars."""
    flags = report.flags
    counts: dict[datetime, Counts] = {held.as_of: held.counts for held in report.histograms}
    latest = max(counts, default=None)
    dates = _newest(flags.dates if flags else ())
    attempts = [stage for stage in report.stages if sum(stage.attempt_s.values())]
    codes = _first(flags.reasons if flags else (), MAX_CODES)
    segments = flags.segments.shown if flags and flags.segments else ()
    bundles = _first(report.bundles if len(report.bundles) > 1 else (), MAX_BUNDLES)
    return {
        "headline": headline(report),
        "aside": set_aside(report),
        "deadline": _deadline(report),
        "seconds": _seconds(report),
        "bundles": bundles,
        "bundle_histograms": [
            (bundle.name, held.as_of, histogram_bars(held.counts)) for bundle in bundles.shown for held in bundle.histograms[-1:]
        ],
        "proof": _proof_lines(report.proof.as_ofs if report.proof else ()),
        "latest": latest,
        "bars": histogram_bars(counts[latest], report.drift.against_counts if report.drift else None) if latest else (),
        "threshold": None if report.threshold is None else threshold_at(report.threshold),
        "small": [(as_of, histogram_bars(counts[as_of])) for as_of in sorted(counts)[-MAX_HISTOGRAMS:]],
        "n_small_left": max(0, len(counts) - MAX_HISTOGRAMS),
        "counts": counts,
        "bins": range(N_BINS),
        "height": HEIGHT,
        "dates": dates,
        "date_shares": shares([date.n_selected for date in dates.shown]),
        "codes": codes,
        "code_shares": shares([code.n_flags for code in codes.shown]),
        "segments": segments,
        "segment_shares": shares([segment.n_selected for segment in segments]),
        "attempts": attempts,
        "attempt_shares": shares([sum(stage.attempt_s.values()) for stage in attempts]),
        "parts": sorted({part for stage in attempts for part in stage.attempt_s}, key=_place_of_part),
        "coverage": _least_covered(report.coverage),
        "drifts": _drifts(report.drift.lines if report.drift else ()),
        "failures": _first(report.failures, MAX_FAILURES),
        "gaps": _first(report.gaps, MAX_GAPS),
        "holds": [(held, _first(held.findings, MAX_FINDINGS)) for held in report.holds[-MAX_HOLDS:]],
        "warnings": _first(report.warnings, MAX_GAPS),
    }


def _deadline(report: Report) -> str:
    run = report.run
    ends_at = run.finished_at or run.expected_at
    if run.deadline_at is None:
        return ""
    if ends_at is None:
        return f"Deadline {run.deadline_at:%Y-%m-%d %H:%M} UTC."
    told = lateness_told(run.deadline_at, ends_at, over=run.finished_at is not None)
    return f"{told[0].upper()}{told[1:]}" + (f"; told first at {run.late_since:%H:%M} UTC." if run.late_since else ".")


def _first(values: Sequence[T], limit: int) -> Some[T]:
    return Some(values[:limit], max(0, len(values) - limit))


def _newest(values: Sequence[T]) -> Some[T]:
    """The last ones: lists by date are in order of time."""
    return Some(values[-MAX_DATES:], max(0, len(values) - MAX_DATES))


def _proof_lines(lines: Sequence[AsOfProof]) -> Some[AsOfProof]:
    """As-ofs that do not close are never among those left out while there is room; then the newest."""
    by_need = sorted(lines, key=lambda line: (line.closes, -line.as_of.timestamp()))
    return Some(sorted(by_need[:MAX_DATES], key=lambda line: line.as_of), max(0, len(lines) - MAX_DATES))


def _least_covered(lines: Sequence[DateCoverage]) -> Some[DateCoverage]:
    """Those whose data reach back least, then the newest."""
    by_need = sorted(lines, key=lambda line: (min(line.tables.values(), default=1.0), -line.as_of.timestamp()))
    return Some(sorted(by_need[:MAX_DATES], key=lambda line: line.as_of), max(0, len(lines) - MAX_DATES))


def _drifts(lines: Sequence[DriftLine]) -> Some[DriftLine]:
    """Those that moved most."""
    ranked = sorted(lines, key=lambda line: (-(line.psi or 0.0), line.as_of))[:MAX_DRIFTS]
    return Some(sorted(ranked, key=lambda line: line.as_of), len(lines) - len(ranked))


def _place_of_part(part: str) -> tuple[int, str]:
    """In the order in which an attempt goes through them."""
    return (_PARTS.index(part) if part in _PARTS else len(_PARTS), part)


def _seconds(report: Report) -> float | None:
    """From the run's opening to its end; None while it is not over."""
    run = report.run
    return (run.finished_at - run.opened_at).total_seconds() if run.finished_at else None


def compact(n: int) -> str:
    """A count in at most five characters: ``17``, ``1.2k``, ``98.1M``."""
    size = float(n)
    for unit in ("", "k", "M", "G"):
        if size < _THOUSAND or unit == "G":
            return f"{size:.0f}" if unit == "" else f"{size:.1f}{unit}"
        size /= _THOUSAND
    raise AssertionError


def duration(seconds: float | None) -> str:
    """Seconds as people say them: ``0.25 s``, ``12 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds is None:
        return "–"
    if seconds < _MINUTE_S:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min {whole % _MINUTE_S:02} s"
    return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S:02} min"


def day(as_of: datetime) -> str:
    """An as-of as short as it can be: the date alone where it is midnight."""
    return f"{as_of:%Y-%m-%d}" if (as_of.hour, as_of.minute) == (0, 0) else f"{as_of:%Y-%m-%d %H:%M}"
