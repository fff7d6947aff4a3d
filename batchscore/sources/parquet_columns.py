"""Whether the columns of a Parquet input can be used, over all its files: by their schemas alone, and nothing is guessed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.errors import BatchscoreError, Problem
from batchscore.features.tables import AccountsTable, EventsTable, TimeColumn
from batchscore.keys import IdKind
from batchscore.plan import InputFile
from batchscore.sources.column_types import is_category, is_number, refuse_id_type, refuse_time_type
from batchscore.sources.parquet_files import told_by_each
from batchscore.spelling import did_you_mean

Table = AccountsTable | EventsTable


def check_schema(
    files: Sequence[InputFile], table: Table, columns: Iterable[str], kind: IdKind, categories: Collection[str] = ()
) -> tuple[Problem, ...]:
    """What is wrong with the columns of an input, over all its files; nothing is ever guessed or filled in.

    ``categories``: those of the ``columns`` of accounts that must be text.
    """
    schemas = told_by_each(_schema_of, files)
    problems: dict[tuple[str, str], Problem] = {}
    needed = [table.key, *(time.column for time in _times(table)), *columns]
    for file, schema in zip(files, schemas, strict=True):
        for problem in _problems_of(schema, table, needed, kind, categories):
            problems.setdefault(
                (problem.where, problem.what),
                problem.__class__(
                    where=f"{table.table}.{problem.where}", what=f"{problem.what} (first in {file.path})", remedy=problem.remedy
                ),
            )
    return (*problems.values(), *_drift(files, schemas, table, needed))


def unified_schema(files: Sequence[InputFile], columns: Iterable[str]) -> pa.Schema:
    """The schema of ``columns`` over all files, brought together without loss; after `check_schema` found nothing."""
    schemas = [_plain(schema, list(columns)) for schema in told_by_each(_schema_of, files)]
    return pa.unify_schemas(schemas, promote_options="permissive")


def holds_id_above(files: Sequence[InputFile], key: str, limit: int) -> bool:
    """Whether a footer says that a key is above ``limit``. False where footers say nothing: then the release finds it."""
    return any(told_by_each(lambda file: _largest(file, key) > limit, files))


def _largest(file: InputFile, key: str) -> int:
    """The largest integer key a footer tells of; -1 for none."""
    footer = pq.read_metadata(Path(file.root) / file.path)
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    columns = [group.column(place) for group in groups for place in range(group.num_columns)]
    told = [column.statistics for column in columns if column.path_in_schema == key and column.statistics is not None]
    return max((int(found.max) for found in told if found.has_min_max and isinstance(found.max, int)), default=-1)


def _schema_of(file: InputFile) -> pa.Schema:
    return pq.read_schema(Path(file.root) / file.path).remove_metadata()


def _times(table: Table) -> list[TimeColumn]:
    times = [table.event_at, table.known_at] if isinstance(table, EventsTable) else table.times.values()
    return [time for time in times if isinstance(time, TimeColumn)]


def _problems_of(
    schema: pa.Schema, table: Table, needed: list[str], kind: IdKind, categories: Collection[str]
) -> Iterator[Problem]:
    times = {time.column: time for time in _times(table)}
    for name in dict.fromkeys(needed):
        n_found = schema.names.count(name)
        if n_found == 0:
            meant = did_you_mean(name, schema.names, otherwise="add it to the files, or change the feature set")
            yield Problem(where=name, what="column_missing: is not among the columns", remedy=meant)
        elif n_found > 1:
            yield Problem(where=name, what=f"column_duplicate: stands {n_found} times", remedy="keep one column of that name")
        else:
            found = schema.field(name).type
            found = found.value_type if pa.types.is_dictionary(found) else found
            try:
                if name == table.key:
                    refuse_id_type(found, kind, where=name)
                elif name in times:
                    refuse_time_type(found, times[name], where=name)
                elif pa.types.is_nested(found):
                    yield Problem(where=name, what=f"column_type: is {found}, which no feature can use", remedy="flatten it")
                elif isinstance(table, AccountsTable):
                    yield from _problems_of_value(name, found, as_category=name in categories)
            except BatchscoreError as error:
                yield Problem(where=name, what=f"{error.reason}: {error.what}", remedy=error.remedy)


def _problems_of_value(name: str, kind: pa.DataType, *, as_category: bool) -> Iterator[Problem]:
    """Of a column of accounts that a feature reads."""
    if as_category and not is_category(kind):
        what = f"column_type: is {kind}, which is no text"
        yield Problem(where=name, what=what, remedy=f"read it as a number: {{column: {name}}}")
    elif not as_category and not is_number(kind):
        by_name = f", or read its names: {{category: {name}}}" if is_category(kind) else ""
        what = f"column_type: is {kind}, which is no number"
        yield Problem(where=name, what=what, remedy=f"make it a number where it is made{by_name}")


def _same_meaning(name: str, kinds: Sequence[pa.DataType], table: Table) -> bool:
    """Whether a column with those types means one thing. Keys and times are brought to one exact form, each file for itself."""
    known = [kind for kind in kinds if not pa.types.is_null(kind)]
    if len(known) <= 1 or name == table.key:
        return True
    if name in {time.column for time in _times(table)}:
        return all(map(_is_aware, known)) or all(map(pa.types.is_integer, known)) or all(map(_is_naive, known))
    return _lossless(known)


def _is_aware(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind)) and kind.tz is not None


def _is_naive(kind: pa.DataType) -> bool:
    return bool(pa.types.is_date(kind)) or (bool(pa.types.is_timestamp(kind)) and kind.tz is None)


def _drift(files: Sequence[InputFile], schemas: Sequence[pa.Schema], table: Table, needed: list[str]) -> Iterator[Problem]:
    """Columns whose types differ between files in a way that loses something."""
    for name in dict.fromkeys(needed):
        kinds: dict[pa.DataType, str] = {}
        for file, schema in zip(files, schemas, strict=True):
            if schema.names.count(name) == 1:
                kinds.setdefault(_plain(schema, [name]).field(name).type, file.path)
        if not _same_meaning(name, list(kinds), table):
            said = ", ".join(f"{kind} in {path}" for kind, path in list(kinds.items())[:2])
            yield Problem(where=f"{table.table}.{name}", what=f"type_drift: {said}", remedy="write all files with one type")


def _lossless(kinds: Sequence[pa.DataType]) -> bool:
    """Whether one type holds all values of all: integers with integers, floats with floats."""
    if all(map(pa.types.is_floating, kinds)):
        return True
    signed = any(pa.types.is_signed_integer(kind) for kind in kinds)
    return all(map(pa.types.is_integer, kinds)) and not (signed and pa.uint64() in kinds)


def _plain(schema: pa.Schema, columns: list[str]) -> pa.Schema:
    """Columns by name, dictionaries and the forms of text brought to one."""
    fields = []
    for name in columns:
        kind = schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        fields.append((name, pa.string() if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) else kind))
    return pa.schema(fields)
