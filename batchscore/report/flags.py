"""Counts flags by date, by segment and by reason code. Pure: tables in, values out; no account id is looked at."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from batchscore.flag import REASONS, FlagState
from batchscore.report.model import DateFlags, Flags, ReasonCount, SegmentFlags, Segments

MAX_SEGMENTS: Final = 12
MAX_REASONS: Final = 3  # of a date or a segment
_FEW_FLAGS: Final = 10  # from here on a column that is nearly an id shows


@dataclass(slots=True)
class _Tally:
    """Flags of one date, one segment, or all."""

    n: int = 0
    n_to_release: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    first: Counter[str] = field(default_factory=Counter)

    def add(self, codes: list[str], *, to_release: bool) -> None:
        """One flag; ``codes`` of the reasons that speak for it, the loudest first."""
        self.n += 1
        self.n_to_release += to_release
        self.codes.update(codes)
        self.first.update(codes[:1])

    def reasons(self, sentences: Mapping[str, str], limit: int | None = None) -> tuple[ReasonCount, ...]:
        """The commonest codes first; equally common ones by name."""
        ranked = sorted(self.codes.items(), key=lambda counted: (-counted[1], counted[0]))[:limit]
        return tuple(
            ReasonCount(code=code, sentence=sentences.get(code, ""), n_flags=n, n_first=self.first[code]) for code, n in ranked
        )


def count_flags(
    decided: pa.Table,
    explained: Iterable[pa.Table],
    *,
    segment: str | None,
    sentences: Mapping[str, str],
    states: Mapping[FlagState, int],
) -> Flags:
    """Everything a report says of flags.

    Args:
        decided: as_of and release, one row per flag that decide selected.
        explained: Tables of as_of, reasons (JSON) and segment (null: none), one row per flag explained so far.
        segment: The column that the spec names, if it does.
        sentences: Reason code → its sentence without a value.
        states: How many flags of the run stand in each state in the queue.
    """
    selected, to_release = _per_date(decided), _per_date(decided.filter(decided["release"]))
    every = _Tally()
    dates: defaultdict[datetime, _Tally] = defaultdict(_Tally)
    groups: defaultdict[str | None, _Tally] = defaultdict(_Tally)
    for table in explained:
        rows = zip(*(column.to_pylist() for column in table.select([0, 1, 2]).columns), strict=True)
        for as_of, reasons, group in rows:
            codes = [reason.code for reason in REASONS.validate_json(reasons) if reason.contribution > 0]
            for tally in (every, dates[as_of], groups[group]):
                tally.add(codes, to_release=as_of in to_release)
    return Flags(
        n_selected=len(decided),
        n_to_release=sum(to_release.values()),
        n_explained=every.n,
        n_released=sum(n for state, n in states.items() if state not in {FlagState.OVERTAKEN, FlagState.WITHDRAWN}),
        n_overtaken=states.get(FlagState.OVERTAKEN, 0),
        n_withdrawn=states.get(FlagState.WITHDRAWN, 0),
        dates=tuple(
            DateFlags(
                as_of=as_of,
                n_selected=n,
                n_to_release=to_release.get(as_of, 0),
                reasons=dates[as_of].reasons(sentences, MAX_REASONS),
            )
            for as_of, n in sorted(selected.items())
        ),
        reasons=every.reasons(sentences),
        segments=_segments(segment, groups, sentences) if segment is not None and every.n else None,
    )


def _per_date(flags: pa.Table) -> dict[datetime, int]:
    counted = pc.value_counts(flags["as_of"].combine_chunks())
    return {entry["values"]: entry["counts"] for entry in counted.to_pylist()}


def _segments(column: str, groups: Mapping[str | None, _Tally], sentences: Mapping[str, str]) -> Segments:
    n_flags = sum(tally.n for tally in groups.values())
    if n_flags >= _FEW_FLAGS and 2 * len(groups) > n_flags:
        return Segments(column=column, shown=(), n_others=len(groups), n_selected_in_others=n_flags, withheld=True)
    ranked = sorted(groups.items(), key=lambda group: (-group[1].n, group[0] is None, group[0] or ""))
    others = ranked[MAX_SEGMENTS:]
    return Segments(
        column=column,
        shown=tuple(
            SegmentFlags(
                segment=name, n_selected=tally.n, n_to_release=tally.n_to_release, reasons=tally.reasons(sentences, MAX_REASONS)
            )
            for name, tally in ranked[:MAX_SEGMENTS]
        ),
        n_others=len(others),
        n_selected_in_others=sum(tally.n for _, tally in others),
    )
