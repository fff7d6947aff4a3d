"""Durable files: written whole or not at all, read back before anyone is told, named by digest.

Every file an attempt leaves goes through `write_parquet`: temporary name, fsync, a rename that never overwrites, fsync of
the folder, then the file is read back and hashed. What is on disk under a final name is complete. Readers check the
SHA-256 of what they open through `verified`, once per process and file as it stands.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.errors import AttemptFailed, Interrupted, PartitionError
from batchscore.plan import Reference
from batchscore.receipt import Output
from batchscore.settings import MAX_SNAPSHOT_GROUP_ROWS

_HASH_BLOCK: Final = 1 << 20
_MEND_DISK: Final = "free space or mend the disk, then resume the run"
Role = Literal["snapshot", "rollup", "scores", "rejects", "reasons", "keys", "days"]


def file_sha256(path: Path) -> str:
    """SHA-256 (64 hex) of a file's bytes."""
    with path.open("rb", buffering=0) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_parquet(  # noqa: PLR0913 (what, where, and two that one caller each needs)
    tables: Iterable[pa.Table],
    schema: pa.Schema,
    store: Path,
    address: str,
    role: Role,
    *,
    group_rows: int = MAX_SNAPSHOT_GROUP_ROWS,
    footer: Mapping[str, str] | None = None,
) -> Output:
    """Write tables of one schema as ``<store>/<address>/<uuid>.parquet``, durably.

    Pages carry checksums. Equal tables give equal bytes, so that two attempts can be compared by SHA-256; that is why the
    tables are cut into row groups of ``group_rows`` here, and not as they happen to come. ``footer`` goes into the file's
    key-value metadata; it is read after the last table, so whoever makes the tables may fill it in.

    Raises:
        AttemptFailed: ``write_failed`` (disk full, I/O error); nothing is left under a final name.
    """
    folder = store / address
    name = f"{uuid.uuid4().hex}.parquet"
    temporary, final = folder / f".{name}.tmp", folder / name
    try:
        _make_folder(folder)
        try:
            n_rows = _write_groups(tables, schema, temporary, group_rows, {} if footer is None else footer)
            sha256 = publish(temporary, final)
        finally:
            _discard(temporary)
        n_bytes = final.stat().st_size
    except OSError as error:
        raise AttemptFailed("write_failed", _said(error), where=f"stage output {role}", remedy=_MEND_DISK) from error
    return Output(role=role, path=f"{address}/{name}", sha256=sha256, n_rows=n_rows, n_bytes=n_bytes)


def _write_groups(tables: Iterable[pa.Table], schema: pa.Schema, path: Path, group_rows: int, footer: Mapping[str, str]) -> int:
    n_rows, waiting, n_waiting = 0, [], 0
    with (
        pa.OSFile(str(path), "wb") as sink,
        pq.ParquetWriter(
            sink, schema, compression=_compression(schema), use_dictionary=False, write_page_checksum=True, store_schema=True
        ) as writer,
    ):
        for table in tables:
            waiting.append(table)
            n_waiting += len(table)
            while n_waiting >= group_rows:
                held = pa.concat_tables(waiting)
                writer.write_table(held.slice(0, group_rows), row_group_size=group_rows)
                waiting, n_waiting = [held.slice(group_rows)], n_waiting - group_rows
                n_rows += group_rows
        if n_waiting or n_rows == 0:
            writer.write_table(pa.concat_tables(waiting) if waiting else schema.empty_table(), row_group_size=group_rows)
            n_rows += n_waiting
        if footer:
            writer.add_key_value_metadata(footer)
    return n_rows


def _compression(schema: pa.Schema) -> dict[str, str]:
    """LZ4, but not for floats: they hardly shrink, and trying doubles the time of writing them (measured)."""
    return {field.name: "none" if pa.types.is_floating(field.type) else "lz4" for field in schema}


def publish(temporary: Path, final: Path) -> str:
    """Make a written file durable and visible under its final name, never over another; return its SHA-256.

    Raises:
        OSError: it could not be done, and nothing new stands under the name; ``FileExistsError`` when it is taken.
    """
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    os.link(temporary, final)  # unlike rename, fails when the name is taken
    try:
        temporary.unlink()
        for folder in (final.parent, final.parent.parent):
            _sync_folder(folder)
        return file_sha256(final)
    except OSError:
        _discard(final)  # it was ours: link made it
        raise


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, each entry durable: a synced file in a folder that is lost is lost too."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _discard(path: Path) -> None:
    """Remove a file of ours; that it cannot be removed must not hide why it has to be."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _said(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else "the file could not be written"


def named_by_digest(payload: bytes, folder: Path, suffix: str) -> Reference:
    """Where `write_named_by_digest` puts these bytes; nothing is written."""
    sha256 = hashlib.sha256(payload).hexdigest()
    return Reference(path=str(folder / f"{sha256}.{suffix}"), sha256=sha256)


def write_named_by_digest(payload: bytes, folder: Path, suffix: str) -> Reference:
    """Write a small file of the driver's durably as ``<folder>/<sha256>.<suffix>``; the same bytes twice are one file.

    A file of that name that holds other bytes is damaged, and is replaced by the right ones.

    Raises:
        Interrupted: ``write_failed``: the run can be resumed once the disk is mended.
    """
    named = named_by_digest(payload, folder, suffix)
    final, temporary = Path(named.path), folder / f".{uuid.uuid4().hex}.tmp"
    try:
        if final.exists():
            if file_sha256(final) == named.sha256:
                return named
            final.unlink()
        _make_folder(folder)
        try:
            temporary.write_bytes(payload)
            with suppress(FileExistsError):  # another driver wrote the same bytes first
                publish(temporary, final)
        finally:
            _discard(temporary)
    except OSError as error:
        raise Interrupted("write_failed", _said(error), where=f"{folder.name}/{final.name}", remedy=_MEND_DISK) from error
    return named


def parquet_bytes(table: pa.Table) -> bytes:
    """A small table as the bytes of a Parquet file; equal tables give equal bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    payload: bytes = sink.getvalue().to_pybytes()
    return payload


def verified(path: str, sha256: str) -> Path:
    """``path``, after its bytes were found to have that SHA-256 (once per process, and again when the file has changed).

    Raises:
        PartitionError: ``input_digest_mismatch``, or ``file_missing``.
    """
    place = Path(path)
    try:
        stat = place.stat()
        found = _sha256_of(path, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise PartitionError(
            "file_missing",
            f"cannot be read: {os.strerror(error.errno or 0)}",
            where=place.name,
            remedy="restore the file, or start a run with --again",
        ) from error
    if found != sha256:
        raise PartitionError(
            "input_digest_mismatch",
            "the file's bytes are not those that were recorded",
            where=place.name,
            remedy="restore the file, or start a run with --again",
        )
    return place


@lru_cache(maxsize=4096)
def _sha256_of(path: str, _inode: int, _n_bytes: int, _mtime_ns: int) -> str:
    """SHA-256 of a file, once for what it is now; the other arguments tell when it has become another."""
    return file_sha256(Path(path))
