"""Which columns an input has, and what each could be: names, types and the statistics of footers. No row is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.features.tables import AccountsTable, TimeColumn, Unit
from batchscore.plan import InputFile
from batchscore.sources.column_types import is_text
from batchscore.sources.parquet_files import list_inputs
from batchscore.sources.sql import inspect_table
from batchscore.spec import SqlSource

Kind = Literal["integer", "text", "time", "float", "bool", "other"]
_N_FILES: Final = 64  # the last in path order, which are the newest where folders are named by day
_UNITS: Final[tuple[tuple[float, Unit], ...]] = ((1e17, "ns"), (1e14, "us"), (1e11, "ms"), (1e8, "s"))  # times since 1973
_SQL_KINDS: Final[tuple[tuple[str, Kind], ...]] = (
    ("BOOL", "bool"),
    ("INT", "integer"),
    ("CHAR", "text"),
    ("TEXT", "text"),
    ("DATE", "time"),
    ("TIMESTAMP", "time"),
    ("FLOAT", "float"),
    ("DOUBLE", "float"),
    ("REAL", "float"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column. ``time``: how a feature set would declare it as a time, None when it cannot be one. ``latest``: its last time."""

    name: str
    kind: Kind
    time: TimeColumn | None = None
    latest: datetime | None = None


def columns_of_files(path: Path) -> tuple[Column, ...]:
    """The columns of the first Parquet file at ``path``, with what the footers of the newest files say of their times.

    Raises:
        Refused: as `list_inputs`.
    """
    files, _ = list_inputs(path)
    largest = _largest(files[-_N_FILES:])
    schema = pq.read_schema(Path(files[0].root) / files[0].path)
    return tuple(_column(field.name, _decoded(field.type), largest.get(field.name)) for field in schema)


def columns_of_table(source: SqlSource) -> tuple[Column, ...]:
    """The columns of a table of a live database, by their declared types. Text may hold times, as in SQLite.

    Raises:
        Refused: ``table_missing``, ``secret_missing``, or the database cannot be reached.
    """
    seen, _ = inspect_table(source, AccountsTable(table="accounts", key="id"), ())
    prefix = "column accounts."
    declared = {name.removeprefix(prefix): str(kind) for name, kind in seen.items() if name.startswith(prefix)}
    return tuple(_declared(name, kind.upper()) for name, kind in declared.items())


def _declared(name: str, said: str) -> Column:
    kind: Kind = next((kind for word, kind in _SQL_KINDS if word in said), "other")
    time = TimeColumn(column=name, zone="UTC") if kind in {"text", "time"} else None
    return Column(name=name, kind=kind, time=time)


def _decoded(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _column(name: str, kind: pa.DataType, largest: int | datetime | None) -> Column:
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        aware = pa.types.is_timestamp(kind) and kind.tz is not None
        latest = largest.replace(tzinfo=largest.tzinfo or UTC) if isinstance(largest, datetime) else None
        return Column(name=name, kind="time", time=TimeColumn(column=name, zone=None if aware else "UTC"), latest=latest)
    if pa.types.is_integer(kind):
        unit = next((unit for least, unit in _UNITS if isinstance(largest, int) and largest >= least), None)
        if unit is None or not isinstance(largest, int):
            return Column(name=name, kind="integer")
        seconds = largest // {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
        latest = datetime.fromtimestamp(seconds, UTC) if seconds < 1 << 33 else None
        return Column(name=name, kind="integer", time=TimeColumn(column=name, unit=unit), latest=latest)
    if pa.types.is_boolean(kind):
        return Column(name=name, kind="bool")
    if pa.types.is_floating(kind):
        return Column(name=name, kind="float")
    return Column(name=name, kind="text" if is_text(kind) else "other")


def _largest(files: Iterable[InputFile]) -> dict[str, int | datetime]:
    """The largest value of each column by the statistics of its row groups, where there are any."""
    found: dict[str, int | datetime] = {}
    for file in files:
        for name, value in _maxima(pq.read_metadata(Path(file.root) / file.path)):
            found[name] = _larger(found.get(name), value)
    return found


def _larger(before: int | datetime | None, value: int | datetime) -> int | datetime:
    """The larger of two; of two that cannot be compared (a zone in one file, none in another) the first."""
    if isinstance(before, int) and isinstance(value, int):
        return max(before, value)
    if isinstance(before, datetime) and isinstance(value, datetime) and (before.tzinfo is None) == (value.tzinfo is None):
        return max(before, value)
    return value if before is None else before


def _maxima(metadata: pq.FileMetaData) -> Iterator[tuple[str, int | datetime]]:
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            statistics = column.statistics
            if statistics is not None and statistics.has_min_max and isinstance(statistics.max, (int, datetime)):
                yield column.path_in_schema, statistics.max
