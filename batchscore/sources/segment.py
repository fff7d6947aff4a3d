"""The groups that an account is in: its segment, by which reports count flags, and what else a policy goes by.

They are columns of the accounts table that a run spec names (a plan, a country, a domain, a network). They are frozen beside the
features, under names of ours and as text, and no feature and no score can see them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.errors import Problem, Refused
from batchscore.features.feature_set import FeatureSet
from batchscore.features.tables import AccountsTable, TimeColumn
from batchscore.plan import InputFile
from batchscore.sources.canonical import decoded
from batchscore.spec import Source, TableGate

SEGMENT: Final = "_segment"  # the column's name in snapshots and reasons; features cannot read a column of that name
GROUP: Final = "_group."  # before the names of the other columns of groups
_FOOTER_THREADS: Final = 8
MAX_SEGMENT_CHARS: Final = 80  # of a segment's name, where it is kept with a flag


def frozen_names(segment: str | None, groups: Iterable[str]) -> dict[str, str]:
    """Column of the accounts → its name in snapshots; the segment's, then the others'."""
    others = {name: f"{GROUP}{name}" for name in groups if name != segment}
    return ({segment: SEGMENT} if segment else {}) | others


def group_problems(
    segment: str | None, groups: Iterable[str], accounts: AccountsTable, columns: Sequence[str]
) -> Iterator[Problem]:
    """What is wrong with naming those columns, whatever the input holds. ``columns``: those that features read."""
    times = [time.column for time in accounts.times.values()]
    remedy = "name a column with few values, such as a plan or a country"
    for column, name in frozen_names(segment, groups).items():
        where = "segment" if name == SEGMENT else f"groups.{column}"
        if column == accounts.key:
            yield Problem(where=where, what="is the account id, and this names a group of accounts", remedy=remedy)
        elif column in times:
            yield Problem(where=where, what="is a time", remedy=remedy)
        elif name in columns:
            yield Problem(where=where, what=f"features read a column named {name!r}", remedy="rename that column")


def gate_problems(gate: Mapping[str, TableGate], feature_set: FeatureSet, sources: Mapping[str, Source]) -> Iterator[Problem]:
    """What is wrong with a spec's gate, whatever the input holds."""
    tables = {events.table: events for events in feature_set.events}
    for name, asked in gate.items():
        where = f"gate.{name}"
        if name not in tables:
            what = "is no events table of the feature set"
            yield Problem(where=where, what=what, remedy=f"its events tables are: {', '.join(tables) or 'none'}")
            continue
        if asked.marker is not None and (name not in sources or sources[name].parquet is None):
            yield Problem(where=f"{where}.marker", what="a table of a database has no marker files", remedy="declare lag instead")
        events = tables[name]
        times = [time.column for time in (events.event_at, events.known_at) if isinstance(time, TimeColumn)]
        if asked.by in {events.key, *times}:
            remedy = "name a column with few values, such as a server or a direction"
            yield Problem(where=f"{where}.by", what="is the account id or a time, and rows are counted by groups", remedy=remedy)
        if asked.by is not None and SEGMENT in feature_set.column_names(name):
            yield Problem(where=f"{where}.by", what=f"features read a column named {SEGMENT!r}", remedy="rename that column")


def segment_problems_of_files(files: Sequence[InputFile], segment: str, table: str) -> tuple[Problem, ...]:
    """What is wrong with the column in Parquet files: absent, twice there, or of a type that names no group."""
    problems: dict[str, Problem] = {}
    with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        schemas = list(pool.map(lambda file: pq.read_schema(Path(file.root) / file.path), files))
    for file, schema in zip(files, schemas, strict=True):
        n_found = schema.names.count(segment)
        if n_found == 0:
            what, remedy = "column_missing: is not among the columns", "name a column of the table, or remove it from the spec"
        elif n_found > 1:
            what, remedy = f"column_duplicate: stands {n_found} times", "keep one column of that name"
        elif not names_groups(schema.field(segment).type):
            what, remedy = f"column_type: is {schema.field(segment).type}, which names no group", "use text, an integer or a bool"
        else:
            continue
        problems.setdefault(what, Problem(where=f"{table}.{segment}", what=f"{what} (first in {file.path})", remedy=remedy))
    return tuple(problems.values())


def names_groups(kind: pa.DataType) -> bool:
    """Whether values of that type can be names of groups: text, integers, bools, or nothing but nulls."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
        or pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)
    )  # fmt: skip


def segment_names(column: pa.ChunkedArray, where: str) -> pa.Array:
    """Names of groups as text, one for each row; null where the account is in none.

    Raises:
        Refused: ``column_type``.
    """
    if not names_groups(column.type):
        raise Refused(
            "column_type", f"is {column.type}, which names no group", where=where, remedy="use text, an integer or a bool"
        )
    return decoded(column).cast(pa.string())
