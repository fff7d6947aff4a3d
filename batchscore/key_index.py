"""The index over a stage's files: which row group of which file holds which range of account ids.

Made by the driver from the Parquet footers of committed files, written as one small file, opened by every worker: an
attempt then touches no file and no row group outside its key range. Files need not be sorted as a whole; only each row
group's own range is used, and rows of several files are merged on reading.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.errors import PartitionError
from batchscore.files import parquet_bytes, verified, write_named_by_digest
from batchscore.keys import ACCOUNT_ID, ID_TYPES, IdKind, hash64, in_range, sort_by_key
from batchscore.plan import KeyRange, Reference
from batchscore.receipt import Output

_INDEXED = b"batchscore.indexed_schema"
_SAMPLES_PER_RANGE = 256  # a cut is 1/256 of a range off its mark in one sorted file, 1/16 where every row is a file of its own


@dataclass(frozen=True, slots=True)
class KeyIndex:
    """``entries``: path (relative to the store), sha256, row_group, n_rows, low, high (both included); by low, then path.

    ``schema`` is that of the indexed files, brought together where they differ without loss (int32 and int64).
    """

    store: Path
    kind: IdKind
    entries: pa.Table
    schema: pa.Schema

    @classmethod
    def build(cls, store: Path, kind: IdKind, outputs: Iterable[Output | Reference]) -> KeyIndex:
        """Index the row groups of ``outputs`` from their footers; files without rows leave no entry.

        Raises:
            PartitionError: ``input_corrupt``.
        """
        rows: list[dict[str, Any]] = []
        schemas: list[pa.Schema] = []
        for output in outputs:
            with corrupt_told(store / output.path), pq.ParquetFile(store / output.path) as file:
                schemas.append(file.schema_arrow.remove_metadata())
                rows += _row_groups(file, output)
        entries = pa.Table.from_pylist(rows, schema=_schema(kind))
        entries = entries.sort_by([("low", "ascending"), ("path", "ascending"), ("row_group", "ascending")])
        schema = pa.unify_schemas([pa.schema([(ACCOUNT_ID, ID_TYPES[kind])]), *schemas], promote_options="permissive")
        return cls(store, kind, entries, pa.schema([_never_null(field) for field in schema]))

    @property
    def n_rows(self) -> int:
        """Rows in all files together."""
        return int(pc.sum(self.entries["n_rows"]).as_py() or 0)

    @property
    def overlaps(self) -> bool:
        """Whether two row groups share a key range, so that one key could stand in both."""
        lows, highs = self.entries["low"].to_pylist(), self.entries["high"].to_pylist()
        return any(_order(low) <= _order(high) for high, low in zip(highs, lows[1:], strict=False))

    def save(self, folder: Path) -> Reference:
        """Write the index durably under its digest; the same index twice is one file."""
        held = self.entries.replace_schema_metadata({_INDEXED: self.schema.serialize().to_pybytes()})
        return write_named_by_digest(parquet_bytes(held), folder, "parquet")

    def cut(self, target_rows: int) -> tuple[tuple[KeyRange, int], ...]:
        """Key ranges that cover every possible id once, equal and at most about ``target_rows`` long, and the estimate for each.

        Reads the key column alone, a row group at a time, and keeps every n-th key, ``n = target_rows / 256``: memory follows
        the number of partitions, not of accounts. Where in a row group the counting starts is drawn from its first key, so
        that many small files are sampled as fairly as a large one. An empty index gives one open range.
        """
        n_rows = self.n_rows
        n_ranges = max(1, -(-n_rows // target_rows))
        stride = max(1, target_rows // _SAMPLES_PER_RANGE)
        sampled = [_every(keys, stride) for keys in self._key_columns()] if n_ranges > 1 else []
        samples = pa.concat_arrays([pa.array([], ID_TYPES[self.kind]), *sampled])
        samples = samples.take(pc.sort_indices(samples))
        edges: list[tuple[int | str | None, int]] = [(None, 0)]
        for number in range(1, n_ranges if len(samples) else 1):
            bound = samples[len(samples) * number // n_ranges].as_py()
            if bound != edges[-1][0]:  # equal where one key has more rows than a range may have
                edges.append((bound, n_rows * number // n_ranges))
        edges.append((None, n_rows))
        return tuple((KeyRange(low=low, high=high), below - above) for (low, above), (high, below) in pairwise(edges))

    def _key_columns(self) -> Iterator[pa.Array]:
        groups: dict[str, list[int]] = {}
        for entry in self.entries.sort_by([("path", "ascending"), ("row_group", "ascending")]).to_pylist():
            groups.setdefault(entry["path"], []).append(entry["row_group"])
        for name, of_file in groups.items():
            # Not hashed: where cuts fall changes no bit of a score, and whoever scores the range checks the file.
            path = self.store / name
            with corrupt_told(path), pq.ParquetFile(path) as file:
                for group in of_file:
                    yield file.read_row_group(group, columns=[ACCOUNT_ID], use_threads=False)[ACCOUNT_ID].combine_chunks()

    def files(self, keys: KeyRange, among: pa.Array | None = None) -> dict[tuple[str, str], list[int]]:
        """(path, sha256) → row groups that may hold keys of the range (and of ``among``); what a read of it opens."""
        mask = None
        if keys.low is not None:
            mask = pc.greater_equal(self.entries["high"], pa.scalar(keys.low, ID_TYPES[self.kind]))
        if keys.high is not None:
            below = pc.less(self.entries["low"], pa.scalar(keys.high, ID_TYPES[self.kind]))
            mask = below if mask is None else pc.and_(mask, below)
        wanted: dict[tuple[str, str], list[int]] = {}
        ids = None if among is None else sorted(map(_order, among.to_pylist()))
        for entry in (self.entries if mask is None else self.entries.filter(mask)).to_pylist():
            if ids is not None and bisect_left(ids, _order(entry["low"])) == bisect_right(ids, _order(entry["high"])):
                continue
            wanted.setdefault((entry["path"], entry["sha256"]), []).append(entry["row_group"])
        return wanted

    def read(self, keys: KeyRange, *, columns: Sequence[str] | None = None, among: pa.Array | None = None) -> pa.Table:
        """Rows of the key range (of the ids ``among`` it only, when given) from all files, sorted by account id.

        Raises:
            PartitionError: ``input_digest_mismatch``, ``file_missing`` or ``input_corrupt``.
        """
        names = list(self.schema.names if columns is None else columns)
        schema = pa.schema([self.schema.field(name) for name in names])
        tables = [
            _read_groups(verified(str(self.store / path), sha256), part, names, keys, among).cast(schema)
            for (path, sha256), groups in sorted(self.files(keys, among).items())
            for part in ([sorted(groups)] if among is None else [[group] for group in sorted(groups)])  # a few of many rows
        ]
        table = pa.concat_tables([schema.empty_table(), *tables]).combine_chunks()
        return table if _sorted(table) else sort_by_key(table)


@contextmanager
def corrupt_told(path: Path) -> Iterator[None]:
    """Where the driver reads a committed file of the store unhashed: what cannot be read is PartitionError ``input_corrupt``."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise PartitionError(
            "input_corrupt", "a file of the store cannot be read", where=path.name, remedy="batchscore run SPEC --again"
        ) from error


def open_index(store: str, kind: IdKind, reference: Reference) -> KeyIndex:
    """The saved index, read and verified once per process."""
    return _open_index(store, kind, reference.path, reference.sha256)


@lru_cache(maxsize=64)
def _open_index(store: str, kind: IdKind, path: str, sha256: str) -> KeyIndex:
    held = pq.read_table(verified(path, sha256))
    schema = pa.ipc.read_schema(pa.py_buffer(held.schema.metadata[_INDEXED]))
    return KeyIndex(Path(store), kind, held.replace_schema_metadata(None).cast(_schema(kind)), schema)


def _read_groups(path: Path, groups: list[int], names: list[str], keys: KeyRange, among: pa.Array | None) -> pa.Table:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read_row_groups(groups, columns=names)
    except (OSError, pa.ArrowException) as error:
        raise PartitionError("input_corrupt", "a page does not decode", where=path.name, remedy="restore the file") from error
    table = _within(table, keys)
    return table if among is None else table.filter(pc.is_in(table[ACCOUNT_ID], value_set=among))


def _within(table: pa.Table, keys: KeyRange) -> pa.Table:
    """The rows of the key range; of rows in key order, as all files of ours are, they are a stretch, and nothing is copied."""
    mask = in_range(table[ACCOUNT_ID], keys.low, keys.high)
    if mask is None:
        return table
    first, n_rows = pc.index(mask, value=True).as_py(), pc.sum(mask).as_py() or 0
    if n_rows and pc.all(mask.slice(first, n_rows)).as_py():
        return table.slice(first, n_rows)
    return table.filter(mask)


def _row_groups(file: pq.ParquetFile, output: Output | Reference) -> Iterator[dict[str, Any]]:
    at = [column.path for column in map(file.schema.column, range(len(file.schema)))].index(ACCOUNT_ID)
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        if group.num_rows:
            statistics = group.column(at).statistics
            if statistics is not None and statistics.has_min_max:
                low, high = statistics.min, statistics.max
            else:  # ids longer than a footer holds
                keys = file.read_row_group(number, columns=[ACCOUNT_ID])[ACCOUNT_ID]
                low, high = (value.as_py() for value in pc.min_max(keys).values())
            yield {
                "path": output.path,
                "sha256": output.sha256,
                "row_group": number,
                "n_rows": group.num_rows,
                "low": low,
                "high": high,
            }


def _never_null(field: pa.Field) -> pa.Field:
    """A column that is null in every file is one of missing numbers."""
    return field.with_type(pa.float64()) if pa.types.is_null(field.type) else field


def _schema(kind: IdKind) -> pa.Schema:
    key = ID_TYPES[kind]
    return pa.schema(
        [
            ("path", pa.string()),
            ("sha256", pa.string()),
            ("row_group", pa.int32()),
            ("n_rows", pa.int64()),
            ("low", key),
            ("high", key),
        ]
    )


def _order(key: Any) -> Any:
    return key.encode() if isinstance(key, str) else key


def _every(keys: pa.Array, stride: int) -> pa.Array:
    """Every ``stride``-th key of a row group."""
    return keys if stride == 1 else keys[int(hash64(keys[:1])[0] % np.uint64(stride)) :: stride]


def _sorted(table: pa.Table) -> bool:
    ids = table[ACCOUNT_ID].combine_chunks()
    return len(ids) < 2 or bool(pc.all(pc.less_equal(ids[:-1], ids[1:])).as_py())
