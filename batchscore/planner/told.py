"""What a person is told of a plan: days and as-ofs that are not over, and tables that ended long ago. No part of the hash."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Final

from batchscore.features.definitions import DAY
from batchscore.features.feature_set import FeatureSet
from batchscore.features.input_gate import days_needed, silence_told, silent_after
from batchscore.plan import InputFile
from batchscore.sources.recent import last_event
from batchscore.spec import RunSpec

_FIRST: Final = datetime.min.replace(tzinfo=UTC)  # before which no silence can begin


def incomplete_days(spec: RunSpec, feature_set: FeatureSet, now: datetime) -> dict[str, tuple[date, ...]]:
    """Table → the days that its gate judges and that are not complete by now: no marker is there, or its lag is not over."""
    found: dict[str, tuple[date, ...]] = {}
    for table, gate in spec.gate.items():
        days = days_needed(spec.as_ofs(), feature_set, table)
        parquet = spec.sources[table].parquet
        if gate.marker is not None and parquet is not None:
            folder, name = Path(parquet.path), gate.marker
            found[table] = tuple(day for day in days if not (folder / day.strftime(name)).is_file())
        elif gate.lag is not None:
            ends = {day: datetime.combine(day, time(), UTC) + DAY for day in days}
            found[table] = tuple(day for day, end in ends.items() if now < end + gate.lag)
    return {table: days for table, days in found.items() if days}


def warnings_of_as_ofs(spec: RunSpec, now: datetime) -> Iterator[str]:
    """As-ofs that lie ahead of ``now``."""
    ahead = [as_of for as_of in spec.as_ofs() if as_of > now]
    if len(ahead) == 1:
        yield f"as-of {ahead[0].isoformat()} is not over yet: what counts for it is not all there"
    elif ahead:
        yield f"{len(ahead)} as-ofs, from {ahead[0].isoformat()} on, are not over yet: what counts for them is not all there"


def warnings_of_silence(spec: RunSpec, feature_set: FeatureSet, inputs: Mapping[str, tuple[InputFile, ...]]) -> Iterator[str]:
    """Events tables that end long before the last as-of, as footers tell."""
    until = spec.as_ofs()[-1]
    for events in feature_set.events:
        since = until - min(silent_after(feature_set, events.table), until - _FIRST)
        last = last_event(inputs.get(events.table, ()), events.event_at, since=since, until=until)
        if last is not None:
            yield silence_told(events.table, last.date(), until)
