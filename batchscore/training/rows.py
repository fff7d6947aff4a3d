"""Rows about accounts from a Parquet file, a folder of them or a CSV file: labels, and the (account, as-of) pairs of a frame.

Columns have fixed names. ``account_id`` may be called as the feature set's key is; ``as_of`` and ``decided_at`` are moments: a
date is its midnight in UTC, and a time has a zone. Ids are read as exactly as those of the accounts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from batchscore.errors import Problem, Refused
from batchscore.features.feature_set import FeatureSet
from batchscore.features.tables import CREATED_AT, DELETED_AT, AccountsTable, TimeColumn
from batchscore.keys import ACCOUNT_ID, ID_TYPES, MOMENT
from batchscore.sources.canonical import Place, canonical_accounts
from batchscore.sources.parquet import read_batches
from batchscore.sources.parquet_columns import check_schema
from batchscore.sources.parquet_files import list_inputs
from batchscore.values import parse_moment

AS_OF: Final = "as_of"
DECIDED_AT: Final = "decided_at"
# Read as accounts are, whose times are declared: these two take the places of an account's two times.
_TIMES: Final = {DECIDED_AT: CREATED_AT, AS_OF: DELETED_AT}
_CSV: Final = ".csv"
_LABELS: Final = "labels"  # what messages call the file


def read_rows(path: Path, feature_set: FeatureSet, needed: Sequence[str], optional: Sequence[str] = ()) -> pa.Table:
    """``account_id`` of the feature set's kind, and the columns ``needed`` and those of ``optional`` that are there.

    Moments are timestamp[us, UTC], other columns numbers as they stand. Rows without a usable account id are left out: no row of
    a frame could have them.

    Raises:
        Refused: no such file; a column is missing or cannot be read exactly.
    """
    read = _from_csv if path.suffix.lower() == _CSV and not path.is_dir() else _from_parquet
    return read(path, feature_set, needed, optional)


def _from_parquet(path: Path, feature_set: FeatureSet, needed: Sequence[str], optional: Sequence[str]) -> pa.Table:
    files, _ = list_inputs(path)
    schema = pq.read_schema(Path(files[0].root) / files[0].path)
    wanted = [*needed, *(name for name in optional if name in schema.names)]
    numbers = [name for name in wanted if name not in _TIMES]
    decided_at, as_of = (_time(name, schema) if name in wanted else None for name in _TIMES)
    table = AccountsTable(table=_LABELS, key=_key(schema.names, feature_set), created_at=decided_at, deleted_at=as_of)
    if problems := check_schema(files, table, numbers, feature_set.account_id):
        raise Refused("column_type", "cannot be used", where=path.name, problems=problems)
    rows = [
        canonical_accounts(batch, table, numbers, feature_set.account_id, Place(file.path)).table
        for file in files
        for batch in read_batches(file, [table.key, *(time.column for time in table.times.values()), *numbers])
    ]
    read = pa.concat_tables(rows, promote_options="permissive")
    return read.rename_columns([{place: name for name, place in _TIMES.items()}.get(name, name) for name in read.column_names])


def _time(name: str, schema: pa.Schema) -> TimeColumn:
    """A date is midnight in UTC; a timestamp without a zone stays refused."""
    is_date = name in schema.names and pa.types.is_date(schema.field(name).type)
    return TimeColumn(column=name, zone="UTC" if is_date else None)


def _from_csv(path: Path, feature_set: FeatureSet, needed: Sequence[str], optional: Sequence[str]) -> pa.Table:
    """Whole, as labels are few. Every column has its type before a value is read: an id never passes through a float."""
    try:
        with path.open(encoding="utf-8") as stream:
            names = stream.readline().strip("\ufeff\r\n").split(",")
    except (OSError, UnicodeDecodeError):
        raise Refused("file_missing", "cannot be read", where=path.name, remedy="name a CSV file in UTF-8, or Parquet") from None
    key = _key(names, feature_set)
    wanted = [*needed, *(name for name in optional if name in names)]
    problems = [
        Problem(where=name, what="column_missing: is not among the columns", remedy="name the columns in the first line")
        for name in (key, *wanted)
        if name not in names
    ]
    if problems:
        raise Refused("column_type", "cannot be used", where=path.name, problems=tuple(problems))
    kinds = {name: pa.string() if name in _TIMES else pa.float64() for name in wanted}
    options = pa.csv.ConvertOptions(
        column_types={key: ID_TYPES[feature_set.account_id], **kinds},
        include_columns=[key, *wanted],
        null_values=[""],
        strings_can_be_null=False,
    )
    try:
        read = pa.csv.read_csv(path, convert_options=options)
        moments = {name: _moments(read[name]) for name in wanted if name in _TIMES}
    except (ValueError, OSError):  # the library's words quote a value
        raise Refused(
            "column_type",
            f"a value of {', '.join((key, *wanted))} is not what the column is for",
            where=path.name,
            remedy="write whole ids, numbers with a point, and moments as 2026-01-31 or 2026-01-31T06:00:00Z",
        ) from None
    made = pa.table({ACCOUNT_ID: read[key], **{name: moments.get(name, read[name]) for name in wanted}})
    return made.filter(made[ACCOUNT_ID].is_valid())


def _moments(texts: pa.ChunkedArray) -> pa.Array:
    """Moments as a spec has them; an empty text is null."""
    encoded = texts.combine_chunks().dictionary_encode()
    told = [parse_moment(text) if text else None for text in encoded.dictionary.to_pylist()]
    return pa.array(told, MOMENT).take(encoded.indices)


def _key(names: Sequence[str], feature_set: FeatureSet) -> str:
    return ACCOUNT_ID if ACCOUNT_ID in names else feature_set.accounts.key
