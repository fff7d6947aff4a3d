"""The input gate: is each day that a run's features newly need there, and are its rows what they usually are? Pure.

A *day* is a whole UTC day of event time: what a feature misses when a delivery fails. It is judged once, as of the first as-of
whose windows reach over it (at most `REACH` back): a sweep judges its last weeks, a backfill the days that each as-of adds.

**At equal age.** Late events come to a day for long after it. So a judged day and each day it is compared with are counted
as they were known equally long after their end, and the newest day does not look poor beside older ones.

**Usual** is the median of the days of the same weekday among the `SPAN` before (of all of them, where there are fewer than three
such), since mail follows the week. A day may have ``factor`` times fewer or more rows, or, where a table moves more than that by
itself, as many times as `SPREADS` robust spreads: the median distance of the days before from their own medians, on a scale
of logarithms, or the spread of a count of that size if that is larger. So one bad day among 28 moves nothing, and a day
without mail every Sunday is usual. Days with fewer than `ENOUGH` before them pass, and are counted.

What people approved of a spec's input stays approved: a day is held again only when it is worse than it was shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from statistics import median
from typing import Final

import numpy as np
import pyarrow as pa

from batchscore.features.definitions import DAY, EPOCH
from batchscore.features.exact import Ints
from batchscore.features.feature_set import FeatureSet
from batchscore.hold import Finding
from batchscore.spec import TableGate

SPAN: Final = 28  # days that a day is compared with
REACH: Final = 28  # days before an as-of that are judged at most
ENOUGH: Final = 7
SPREADS: Final = 4.0
LEAST_FACTOR: Final = 2.0  # of a gate that declares none: it decides only whether a day without rows is usual
WORSE: Final = 1.1  # how much farther from usual than it was approved is worse: late rows move a day a little
SILENT_AFTER: Final = timedelta(days=7)
NOT_COMPLETE: Final = "not complete"
NO_ROWS: Final = "no rows"
FEWER: Final = "fewer rows than usual"
MORE: Final = "more rows than usual"
_WEEK: Final = 7
_ALIKE: Final = 3
_NORMAL: Final = 1.4826  # of a normal distribution: its standard deviation over its median absolute deviation
_WIDEST: Final = 30.0  # of a range, as a logarithm: beyond it nothing is unusual

Segment = str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedDays:
    """What became of the days of a table. ``n_new``: those with too few days before them to be compared; they pass."""

    findings: tuple[Finding, ...]
    n_days: int
    n_new: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Usual:
    """A day's rows, and the range of those like it, both ends included; None where too few days are there to compare."""

    n: int
    bounds: tuple[int, int] | None


class DayCounts:
    """The day counts of one table (`day_counts.DAYS_SCHEMA`), asked for as they were known at a moment."""

    def __init__(self, counts: pa.Table, grain: timedelta) -> None:
        self._grain = grain
        encoded = counts["segment"].combine_chunks().dictionary_encode(null_encoding="encode")
        self.segments: tuple[Segment, ...] = tuple(encoded.dictionary.to_pylist())
        segment = encoded.indices.to_numpy().astype(np.int64)
        day, known, n = (counts[name].to_numpy().astype(np.int64) for name in ("event_day", "known_grain", "n"))
        self._days, of_day = np.unique(day, return_inverse=True)
        self._known, of_known = np.unique(known, return_inverse=True)
        place = (segment * len(self._days) + of_day) * len(self._known) + of_known  # numbers of what occurs: no overflow
        order = np.argsort(place)
        self._place = place[order]
        self._so_far = np.concatenate([[0], np.cumsum(n[order])])
        self._first_known = np.full(len(self._days), np.iinfo(np.int64).max)
        np.minimum.at(self._first_known, of_day, known)

    def n(self, days: Sequence[date], age: timedelta, segments: Sequence[Segment]) -> Ints:
        """Events of each of ``days`` that were known before so long after its end, over ``segments``: int64 (n,)."""
        numbers = np.array([_number(day) for day in days], np.int64)
        ends = np.array([self._grains(_end(day) + age) for day in days], np.int64)
        if not len(self._days):
            return np.zeros(len(numbers), np.int64)
        at = np.minimum(np.searchsorted(self._days, numbers), len(self._days) - 1)
        wanted = np.array([self.segments.index(segment) for segment in segments], np.int64)
        begin = (wanted[:, None] * len(self._days) + at) * len(self._known)
        upto = begin + np.searchsorted(self._known, ends)
        counted = self._so_far[np.searchsorted(self._place, upto)] - self._so_far[np.searchsorted(self._place, begin)]
        return np.where(self._days[at] == numbers, counted.sum(axis=0), 0)

    def first(self, by: datetime) -> date | None:
        """The first day of which an event was known before ``by``."""
        days = self._days[self._first_known < self._grains(by)]
        return _day(int(days[0])) if len(days) else None

    def last(self, by: datetime) -> date | None:
        """The last day that began before ``by`` and of which an event was known by then."""
        begun = self._days < -(-(by - EPOCH) // DAY)
        days = self._days[begun & (self._first_known < self._grains(by))]
        return _day(int(days[-1])) if len(days) else None

    def _grains(self, by: datetime) -> int:
        return (by - EPOCH) // self._grain


def days_needed(as_ofs: Iterable[datetime], feature_set: FeatureSet, table: str) -> dict[date, datetime]:
    """Each day to be judged, in order → the first as-of whose windows over ``table`` need it."""
    reach = feature_set.reach(table)
    n_days = REACH if reach is None else min(REACH, -(-reach // DAY))
    needed: dict[date, datetime] = {}
    for as_of in sorted(as_ofs):
        for back in range(1, n_days + 1):
            needed.setdefault(as_of.date() - back * DAY, as_of)
    return dict(sorted(needed.items()))


def judge(
    table: str, gate: TableGate, counts: DayCounts, needed: Mapping[date, datetime], incomplete: Iterable[date] = ()
) -> JudgedDays:
    """Judge the days ``needed`` (of `days_needed`). ``incomplete``: those that were not complete when files were listed.

    Days before the table's first event are not there to be judged (`coverage` speaks of them), nor is that first day, which may
    be a part of one. A table without any event is one finding: its last day.
    """
    late = frozenset(incomplete)
    began = {as_of: counts.first(as_of) for as_of in set(needed.values())}
    findings: list[Finding] = []
    n_days = n_new = 0
    for day, as_of in needed.items():
        begin = began[as_of]
        if begin is None:
            if day + DAY == as_of.date():
                findings.append(Finding(of=table, day=day, n=0, what=NO_ROWS))
        elif day > begin:
            n_days += 1
            whole = usual_of(day, as_of, begin, gate.factor, counts, counts.segments)
            n_new += whole.bounds is None
            what = NOT_COMPLETE if day in late else _wrong_with(whole, gate.factor)
            if what is not None:
                findings.append(_finding(table, day, whole, what))
            elif gate.by is not None:
                findings += _of_segments(table, gate, counts, day, as_of, begin)
    return JudgedDays(findings=tuple(findings), n_days=n_days, n_new=n_new)


def _of_segments(table: str, gate: TableGate, counts: DayCounts, day: date, as_of: datetime, begin: date) -> Iterable[Finding]:
    """Findings of a day that is as usual as a whole, for the values of the gate's column."""
    for segment in sorted(counts.segments, key=str):
        part = usual_of(day, as_of, begin, gate.factor, counts, [segment])
        what = None if part.bounds is None else _wrong_with(part, gate.factor)
        if what is not None:
            yield _finding(f"{table}, {gate.by} {'none' if segment is None else segment}", day, part, what)


def usual_of(
    day: date, as_of: datetime, begin: date, factor: float | None, counts: DayCounts, segments: Sequence[Segment]
) -> Usual:
    """The rows of a day as of ``as_of``, and their usual range: that of the days before it, after ``begin``, at equal age."""
    before = [day - back * DAY for back in range(1, SPAN + 1) if day - back * DAY > begin]
    n, *rows = counts.n([day, *before], as_of - _end(day), segments).tolist()
    if len(rows) < ENOUGH:
        return Usual(n=n, bounds=None)
    centres = [_centre(rows, weekday) for weekday in range(_WEEK)]  # of the days that are so many more than whole weeks before
    away = median(abs(math.log((held + 0.5) / (centres[back % _WEEK] + 0.5))) for back, held in enumerate(rows, start=1))
    centre = max(0.5, centres[0])
    spread = max(_NORMAL * away, 1 / math.sqrt(centre))
    times = max(factor or LEAST_FACTOR, math.exp(min(SPREADS * spread, _WIDEST)))
    return Usual(n=n, bounds=(math.floor(centre / times), math.ceil(centre * times)))


def not_approved(findings: Iterable[Finding], approved: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings that no approval covers: one of the same day and wrong, when it was shown as bad or worse."""
    shown: dict[tuple[str, date | None, str], list[Finding]] = {}
    for seen in approved:
        shown.setdefault((seen.of, seen.day, seen.what), []).append(seen)
    return tuple(
        finding
        for finding in findings
        if not any(_covers(seen, finding) for seen in shown.get((finding.of, finding.day, finding.what), ()))
    )


def is_silent(last: date | None, as_of: datetime, feature_set: FeatureSet, table: str) -> bool:
    """Whether the last event lies so long before ``as_of`` that a window over the table holds nothing, of any account."""
    return last is None or as_of - _end(last) >= silent_after(feature_set, table)


def silent_after(feature_set: FeatureSet, table: str) -> timedelta:
    """How long a table may be without events: the shortest window over it, from a day to a week."""
    shortest = feature_set.shortest_window(table)
    return SILENT_AFTER if shortest is None else max(DAY, min(SILENT_AFTER, shortest))


def silence_told(table: str, last: date | None, as_of: datetime) -> str:
    """What a person is told of a silent table."""
    since = "no events" if last is None else f"no event after {last:%Y-%m-%d}"
    return f"{table}: {since}, as of {as_of:%Y-%m-%d}; features over it see accounts that do nothing"


def _covers(seen: Finding, finding: Finding) -> bool:
    if finding.what == MORE:
        return _excess(finding) <= WORSE * _excess(seen)
    if finding.what == FEWER:
        return _shortfall(finding) <= WORSE * _shortfall(seen)
    return finding.n >= seen.n


def _excess(finding: Finding) -> float:
    return finding.n / max(1, finding.high or 0)


def _shortfall(finding: Finding) -> float:
    return (finding.low or 0) / max(1, finding.n)


def _finding(of: str, day: date, usual: Usual, what: str) -> Finding:
    low, high = usual.bounds or (None, None)
    return Finding(of=of, day=day, n=usual.n, low=low, high=high, what=what)


def _wrong_with(usual: Usual, factor: float | None) -> str | None:
    """What is wrong with a day's rows; None for nothing."""
    if usual.n == 0:
        return NO_ROWS if usual.bounds is None or usual.bounds[0] > 0 else None
    if usual.bounds is None or factor is None:
        return None
    low, high = usual.bounds
    return FEWER if usual.n < low else MORE if usual.n > high else None


def _centre(rows: Sequence[int], weekday: int) -> float:
    """The median of the days of one weekday, of all where those are too few. ``rows``: of 1, 2, … days before."""
    alike = [held for back, held in enumerate(rows, start=1) if back % _WEEK == weekday]
    return median(alike if len(alike) >= _ALIKE else rows)


def _end(day: date) -> datetime:
    return EPOCH + (_number(day) + 1) * DAY


def _number(day: date) -> int:
    return (day - EPOCH.date()).days


def _day(number: int) -> date:
    return EPOCH.date() + number * DAY
