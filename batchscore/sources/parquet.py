"""Rows of Parquet files, in bounded batches.

Reading checks that a file is still the one that was planned, that its pages match their checksums, and that what it decodes to
stays within the memory limit, whatever its footer claims.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.errors import PartitionError
from batchscore.plan import InputFile
from batchscore.settings import MAX_PARTITION_BYTES
from batchscore.sources.column_types import is_text
from batchscore.sources.parquet_files import footer_of

BATCH_ROWS: Final = 65_536
BATCH_ROWS_OF_TEXT: Final = 8_192  # text may be long


def read_batches(file: InputFile, columns: Iterable[str]) -> Iterator[pa.Table]:
    """Rows of a planned file in order, at most `BATCH_ROWS` a table, with the given columns only.

    Raises:
        PartitionError: ``input_digest_mismatch`` (not the file that was planned), ``file_missing``, ``input_corrupt``,
            ``invalid_utf8`` or ``memory_limit``.
    """
    path = _as_planned(file)
    names = list(dict.fromkeys(columns))
    n_rows = 0
    try:
        with _opened(path, names) as (opened, batch_rows):
            for batch in opened.iter_batches(batch_rows, columns=names, use_threads=False):
                _refuse_large(batch, file)
                n_rows += len(batch)
                if n_rows > file.n_rows:
                    break
                yield pa.Table.from_batches([batch]).select(names)
            if n_rows == 0:
                yield opened.schema_arrow.empty_table().select(names)
    except (MemoryError, pa.ArrowCapacityError):
        raise PartitionError(
            "memory_limit", "a page decodes to more than there is room for", where=file.path, remedy="write smaller values"
        ) from None
    except (OSError, pa.ArrowException, UnicodeDecodeError, KeyError) as error:
        raise PartitionError(
            "input_corrupt", "a page does not decode, or does not match its checksum", where=file.path, remedy="restore the file"
        ) from error
    if n_rows != file.n_rows:
        held = "more" if n_rows > file.n_rows else f"{n_rows:,}"
        raise PartitionError(
            "input_corrupt", f"{file.n_rows:,} rows were planned, it holds {held}", where=file.path, remedy="restore the file"
        )


def _as_planned(file: InputFile) -> Path:
    """Where the file lies; raises unless it is the one that was planned."""
    path = Path(file.root) / file.path
    try:
        stat = path.stat()
    except OSError as error:
        raise PartitionError("file_missing", f"cannot be read: {os.strerror(error.errno or 0)}", where=file.path) from error
    if (stat.st_size, stat.st_mtime_ns) != (file.n_bytes, file.mtime_ns) or not _has_footer(path, file.footer_sha256):
        raise PartitionError(
            "input_digest_mismatch",
            "size, time of change or footer are not those of the plan",
            where=file.path,
            remedy="restore the file, or plan again",
        )
    return path


def _refuse_large(batch: pa.RecordBatch, file: InputFile) -> None:
    n_bytes = sum(map(_decoded_bytes, batch.columns))
    if n_bytes > MAX_PARTITION_BYTES:
        what = f"{len(batch):,} rows decode to {n_bytes:,} bytes"
        raise PartitionError("memory_limit", what, where=file.path, remedy="write smaller values")


def _has_footer(path: Path, sha256: str) -> bool:
    try:
        return hashlib.sha256(footer_of(path)).hexdigest() == sha256
    except OSError:  # its length points before the file's beginning
        return False


@contextmanager
def _opened(path: Path, names: list[str]) -> Iterator[tuple[pq.ParquetFile, int]]:
    """The file, and how many rows to read at a time.

    Text stays in its dictionaries until its size is known: a page of 40 KB may name one long word 65,536 times. Column
    chunks are read a buffer at a time, so that a row group may be larger than memory.
    """
    settings = {"page_checksum_verification": True, "pre_buffer": False, "buffer_size": 1 << 20}
    with pq.ParquetFile(path, **settings) as opened:
        text = [name for name in names if is_text(opened.schema_arrow.field(name).type)]
        if not text:
            yield opened, BATCH_ROWS
            return
    with pq.ParquetFile(path, read_dictionary=text, **settings) as opened:
        yield opened, BATCH_ROWS_OF_TEXT


def _decoded_bytes(column: pa.Array) -> int:
    """Bytes of a column once its dictionary is decoded."""
    if not pa.types.is_dictionary(column.type) or not is_text(column.type.value_type):
        return int(column.nbytes)
    lengths = pc.binary_length(column.dictionary).cast(pa.int64())
    return int(pc.sum(lengths.take(column.indices)).as_py() or 0)
