"""Events of a live MySQL table, frozen in ranges of the key along which the table grows (its *append key*).

A range is *closed* once it is full and its newest rows were known longer ago than the source's ``reread``: by that declaration
no row of it changes any more, and none comes to it. It is read once, for all runs. What lies above is open, and each run cuts
and reads it anew. An event that happened long ago and arrives now has a large key, so it lies in a range that is open.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta
from itertools import pairwise
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from batchscore.database import is_mysql, read
from batchscore.errors import Problem
from batchscore.features.feature_set import FeatureSet
from batchscore.features.rollup_columns import check_measures
from batchscore.features.tables import EventsTable, TimeColumn
from batchscore.keys import MOMENT
from batchscore.plan import KeyBound
from batchscore.sources.canonical import Place
from batchscore.sources.load import gentle_problems
from batchscore.sources.mysql import PageReader, asked_types, pages_of, problems_of, ready_key
from batchscore.sources.mysql_columns import Role, columns_of
from batchscore.sources.mysql_ranges import ranges_from_below
from batchscore.sources.sql import connected, observed_rows, opened, refuse_missing_table
from batchscore.sources.text_times import with_moments
from batchscore.sources.utc_times import to_utc
from batchscore.spec import SqlSource

REREAD: Final = timedelta(days=1)  # where a source declares nothing
NEWEST_ROWS: Final = 1_000  # of a range: what tells how long ago it was filled


@dataclass(frozen=True, kw_only=True, slots=True)
class EventRange:
    """Append keys in (low, high]; ``high`` None: the table is empty."""

    low: KeyBound | None
    high: KeyBound | None
    closed: bool


def inspect_events(
    source: SqlSource, events: EventsTable, feature_set: FeatureSet, by: str | None
) -> tuple[dict[str, str | int], tuple[Problem, ...]]:
    """What planning may know of a live table of events, as `sql.inspect_table`; ``by``: a column that its days are counted by.

    Raises:
        Refused: ``table_missing`` or ``secret_missing``.
        TryAgain: ``database_away``.
    """
    where = f"sources.{events.table}"
    with connected(source) as connection:
        if not is_mysql(connection):
            return {}, (Problem(where=where, what="events are read from Parquet, MySQL or MariaDB", remedy="export the table"),)
        refuse_missing_table(connection, source, events.table)
        observed: dict[str, str | int] = dict([observed_rows(connection, source, events.table)])
        found = columns_of(connection, source.table)
        roles = _roles(events, feature_set.column_names(events.table), by)
        problems = [
            Problem(where=f"{events.table}.{name}", what="column_missing: is not among the columns", remedy="check its name")
            for name in roles
            if name not in found
        ]
        if not source.key:
            what = "key_not_indexed: says not along which key the table grows, and all of it would be read in each run"
            problems.append(Problem(where=where, what=what, remedy="name it, such as the auto-increment: key: [id]"))
        elif nullable := [name for name in source.key if name in found and found[name].nullable]:
            what = "key_not_indexed: may be null, and rows without a key are in no range"
            problems.append(Problem(where=f"{events.table}.{nullable[0]}", what=what, remedy="name a key that is NOT NULL"))
        problems += problems_of(connection, source, events.table, list(roles.items()), feature_set.account_id)
        problems += check_measures(feature_set, events.table, asked_types(connection, source, roles.items()))
        problems += gentle_problems(connection, source, events.table)
    return observed, tuple(problems)


def event_ranges(source: SqlSource, events: EventsTable, closed: Mapping[KeyBound | None, KeyBound]) -> list[EventRange]:
    """Ranges up to the largest append key now, without a gap; never none. ``closed``: those of earlier runs, by their low."""
    found: list[EventRange] = []
    low: KeyBound | None = None
    while low in closed:
        found.append(EventRange(low=low, high=closed[low], closed=True))
        low = closed[low]
    with opened(source) as engine:
        key = ready_key(engine, source, events.key)
        new = list(pairwise(ranges_from_below(engine, source, key, low)))
        settled = len(new) > 1
        for place, (since, until) in enumerate(new):
            assert until is not None
            settled = settled and place < len(new) - 1 and _is_settled(engine, source, events, until)
            found.append(EventRange(low=since, high=until, closed=settled))
    return found or [EventRange(low=None, high=None, closed=False)]


def _is_settled(engine: sa.Engine, source: SqlSource, events: EventsTable, until: KeyBound) -> bool:
    """Whether the newest rows up to a bound were known longer ago, by the server's clock, than rows may still change.

    A row that claims to become known later tells nothing: one of them would keep its range open for ever.
    """
    time = events.known_at if isinstance(events.known_at, TimeColumn) else events.event_at
    where = f"table {source.table}: {time.column}"
    reader = PageReader(engine, source, {events.key: "key", time.column: "time"}, None)
    newest = with_moments(reader.last_rows(until, NEWEST_ROWS), [time])[time.column].combine_chunks()
    now = pa.scalar(read(engine, _clock, where=where), MOMENT)
    known, _ = to_utc(newest, time, where)
    latest = pc.max(known.filter(pc.less_equal(known, now))).as_py()
    return latest is not None and latest < now.as_py() - (REREAD if source.reread is None else source.reread)


def _clock(connection: sa.Connection) -> Any:
    return connection.exec_driver_sql("SELECT UTC_TIMESTAMP(6)").scalar_one().replace(tzinfo=UTC)


def read_event_pages(
    source: SqlSource,
    events: EventsTable,
    columns: Sequence[str],
    bounds: tuple[KeyBound | None, KeyBound | None],
    by: str | None = None,
) -> Iterator[tuple[pa.Table, Place]]:
    """Raw events with append keys in (low, high], a page at a time, the ``columns`` in their own types; at least an empty page.

    Raises:
        PartitionError: ``column_type``: a column changed since the run was planned.
    """
    times = _times(events)
    with opened(source) as engine:
        for page, place in pages_of(engine, source, bounds, _roles(events, columns, by)):
            yield with_moments(page, times), place


def _times(events: EventsTable) -> list[TimeColumn]:
    return [time for time in (events.event_at, events.known_at) if isinstance(time, TimeColumn)]


def _roles(events: EventsTable, columns: Sequence[str], by: str | None) -> dict[str, Role]:
    times: dict[str, Role] = {time.column: "time" for time in _times(events)}
    roles: dict[str, Role] = {events.key: "key", **times}
    for name in columns:
        roles.setdefault(name, "value")
    if by:
        roles.setdefault(by, "segment")
    return roles
