"""What a run set aside row by row: shown without ids or values, or exported for the person who mends the source.

Two kinds: rows of the *sources* (a null id, an event in the future), told by file and row number, and *scores* (an infinite
feature), told by account and as-of. Only an export names accounts: it is a file that its operator asked for.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.errors import REJECT_CODES, Refused
from batchscore.features.feature_set import FeatureSet
from batchscore.files import publish, verified
from batchscore.keys import ACCOUNT_ID, ID_TYPES
from batchscore.plan import FreezeEvents, FreezeParquet, FreezeSql, Rollup, Stage
from batchscore.ports import RunRow, StoreReader
from batchscore.values import Value

SHOWN_ROWS: Final = 20
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "'")  # what makes a spreadsheet compute, or hides that it was guarded
_SOURCE_STAGES: Final = (Stage.FREEZE, Stage.ROLLUP)


class RejectedCount(Value):
    """How many rows of one file, or scores of one as-of, got one code, and what the code means."""

    table: str  # of the feature set; "scores" for what could not be scored
    file: str | None
    as_of: datetime | None
    code: str
    means: str
    n: int


class RejectedRow(Value):
    """One row of a source: ``row`` counts from 0 in its file (or in the pages of a live table)."""

    table: str
    file: str
    row: int
    code: str


class Rejected(Value):
    """What `batchscore status RUN --rejected` shows. ``first``: at most `SHOWN_ROWS` rows of sources."""

    run_id: str
    n: int
    counts: tuple[RejectedCount, ...]
    first: tuple[RejectedRow, ...]


def n_rejected(reader: StoreReader, run_id: str) -> int:
    """How many rows and scores a run rejected, from its receipts alone."""
    return sum(
        n
        for stage in (*_SOURCE_STAGES, Stage.SCORE)
        for receipt in reader.receipts(run_id, stage)
        for name, n in receipt.counts.items()
        if name.startswith("rejected ")
    )


def rejected(row: RunRow, reader: StoreReader) -> Rejected:
    """Counts by table, file (or as-of) and code, and the first rows by file and number. No id, no value."""
    counts: Counter[tuple[str, str | None, datetime | None, str]] = Counter()
    first: list[RejectedRow] = []
    for table, rows in _source_rejects(row, reader):
        for record in rows.to_pylist():
            counts[table, record["file"], None, record["code"]] += 1
            if len(first) < SHOWN_ROWS:
                first.append(RejectedRow(table=table, **record))
    for rows in _score_rejects(row, reader):
        for as_of, code in zip(rows["as_of"].to_pylist(), rows["code"].to_pylist(), strict=True):
            counts["scores", None, as_of, code] += 1
    return Rejected(
        run_id=row.run_id,
        n=counts.total(),
        counts=tuple(
            RejectedCount(table=table, file=file, as_of=as_of, code=code, means=REJECT_CODES.get(code, code), n=n)
            for (table, file, as_of, code), n in counts.items()
        ),
        first=tuple(first),
    )


def export_rejects(row: RunRow, reader: StoreReader, path: Path) -> int:
    """Write every reject to ``path`` (.parquet or .csv); how many. The file appears whole or not at all.

    Columns: table, file, row (int64), as_of, account_id (of the store's kind), code; sources have no account and scores no file.

    Raises:
        Refused: ``spec_invalid`` for another suffix, ``file_exists``, ``file_missing`` when the folder is not there.
    """
    write = {".parquet": _write_parquet, ".csv": _write_csv}.get(path.suffix)
    if write is None:
        raise Refused(
            "spec_invalid", "the suffix is not .parquet or .csv", where=path.name, remedy="name the file with one of them"
        )
    if os.path.lexists(path):  # also a symlink that leads nowhere
        raise _taken(path)
    if not path.absolute().parent.is_dir():
        raise Refused("file_missing", "the folder is not there", where=str(path.parent), remedy="make it first")
    schema = _schema(FeatureSet.thaw(row.plan.feature_set))
    named = [*_source_rejects(row, reader), *(("scores", rows) for rows in _score_rejects(row, reader))]
    tables = [_filled(rows.append_column("table", pa.repeat(table, len(rows))), schema) for table, rows in named]
    rejects = pa.concat_tables([schema.empty_table(), *tables])
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write(rejects, temporary)
        publish(temporary, path)
    except FileExistsError:  # it came in the meantime
        raise _taken(path) from None
    finally:
        temporary.unlink(missing_ok=True)
    return len(rejects)


def _taken(path: Path) -> Refused:
    return Refused("file_exists", "is there already", where=path.name, remedy="name another file, or move this one away")


def guarded(value: object) -> str:
    """A cell of a CSV file that no spreadsheet takes for a formula: text is marked by a leading apostrophe where it could be."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat()
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else str(value)


def _source_rejects(row: RunRow, reader: StoreReader) -> Iterator[tuple[str, pa.Table]]:
    """(table, its rejects) of freeze and rollup, a file at a time."""
    store = Path(row.plan.spec.store)
    for stage in _SOURCE_STAGES:
        tables = {
            partition.number: partition.work.table
            for partition in reader.partitions(row.run_id, stage)
            if isinstance(partition.work, (FreezeParquet, FreezeSql, FreezeEvents, Rollup))
        }
        for receipt in reader.receipts(row.run_id, stage):
            for output in receipt.outputs:
                if output.role == "rejects":
                    yield tables[receipt.number], pq.read_table(verified(str(store / output.path), output.sha256))


def _score_rejects(row: RunRow, reader: StoreReader) -> Iterator[pa.Table]:
    store = Path(row.plan.spec.store)
    for receipt in reader.receipts(row.run_id, Stage.SCORE):
        for output in receipt.outputs:
            if output.role == "rejects":
                yield pq.read_table(verified(str(store / output.path), output.sha256))


def _schema(feature_set: FeatureSet) -> pa.Schema:
    return pa.schema(
        [
            ("table", pa.string()),
            ("file", pa.string()),
            ("row", pa.int64()),
            ("as_of", pa.timestamp("us", "UTC")),
            (ACCOUNT_ID, ID_TYPES[feature_set.account_id]),
            ("code", pa.string()),
        ]
    )


def _filled(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows in the export's columns; those that their kind of reject does not have are null."""
    arrays: list[Any] = [
        rows[column.name].cast(column.type) if column.name in rows.column_names else pa.nulls(len(rows), column.type)
        for column in schema
    ]
    return pa.table(arrays, schema=schema)


def _write_parquet(rejects: pa.Table, path: Path) -> None:
    pq.write_table(rejects, path)


def _write_csv(rejects: pa.Table, path: Path) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(rejects.column_names)
    for batch in rejects.to_batches(max_chunksize=10_000):
        writer.writerows([guarded(value) for value in record.values()] for record in batch.to_pylist())
    path.write_text(text.getvalue(), encoding="utf-8")
