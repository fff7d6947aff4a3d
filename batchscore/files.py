"""Durable files: written whole or not at all, read back before anyone is told, named by digest.

Every file an attempt leaves is a `ParquetDraft` first: temporary name, fsync (`settling`: of a large file it has little left to
wait for), a rename that never overwrites, fsync of the folder, read back and hashed. What is on disk under a final name is
complete. Readers check the SHA-256 of what they open through `verified`, once per process and file as it stands.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.errors import AttemptFailed, Interrupted, PartitionError
from batchscore.failpoints import Point, reach
from batchscore.keys import ACCOUNT_ID
from batchscore.plan import Reference
from batchscore.receipt import Output
from batchscore.settings import MAX_SNAPSHOT_GROUP_ROWS
from batchscore.settling import Settling

MOST_KNOWN: Final = 4_096  # files whose digest a process remembers
MOST_WHOLE_BYTES: Final = 64 << 20  # of a file that is held in memory to be hashed and read in one
_MEND_DISK: Final = "free space or mend the disk"
Role = Literal["snapshot", "groups", "events", "rollup", "scores", "rejects", "reasons", "days", "closer_look"]


def file_sha256(path: Path) -> str:
    """SHA-256 (64 hex) of a file's bytes."""
    with path.open("rb", buffering=0) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_parquet(
    tables: Iterable[pa.Table],
    schema: pa.Schema,
    store: Path,
    address: str,
    role: Role,
    *,
    group_rows: int = MAX_SNAPSHOT_GROUP_ROWS,
) -> Output:
    """Write tables of one schema as a `ParquetDraft`, from the first to the last, and publish it.

    Raises:
        AttemptFailed: ``write_failed`` (disk full, I/O error); nothing is left under a final name.
    """
    with ParquetDraft(schema, store, address, role, group_rows=group_rows) as draft:
        for table in tables:
            draft.write(table)
        return draft.publish()


def write_arrow(table: pa.Table, store: Path, address: str, role: Role) -> Output:
    """Write a table as an Arrow file, as durably: for rows that are looked up one by one, which Parquet would decode a page for.

    Raises:
        AttemptFailed: as `write_parquet`.
    """
    name = f"{uuid.uuid4().hex}.arrow"
    temporary, final = store / address / f".{name}.tmp", store / address / name
    with _failing(role):
        try:
            _make_folder(final.parent)
            reach(Point.FILE_NAMED)
            with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table.combine_chunks())
            sha256 = publish(temporary, final)
            n_bytes = final.stat().st_size
        finally:
            _discard(temporary)
    return Output(role=role, path=f"{address}/{name}", sha256=sha256, n_rows=len(table), n_bytes=n_bytes)


class ParquetDraft:
    """A file ``<store>/<address>/<uuid>.parquet`` that grows table by table, and appears whole when it is published, or never.

    Pages carry checksums. Equal tables give equal bytes, so that two attempts can be compared by SHA-256; that is why the
    tables are cut into row groups of ``group_rows`` here, and not as they happen to come. A context manager: a draft that was
    not published is gone when the block is left. A disk that is full or fails is AttemptFailed ``write_failed``.
    """

    def __init__(
        self, schema: pa.Schema, store: Path, address: str, role: Role, *, group_rows: int = MAX_SNAPSHOT_GROUP_ROWS
    ) -> None:
        name = f"{uuid.uuid4().hex}.parquet"
        self._path = f"{address}/{name}"
        self._temporary, self._final = store / address / f".{name}.tmp", store / address / name
        self._schema, self._role, self._group_rows = schema, role, group_rows
        self._files = ExitStack()  # what is open
        self._waiting: list[pa.Table] = []
        self._n_waiting = self._n_written = 0

    def __enter__(self) -> Self:
        with _failing(self._role), ExitStack() as opened:
            _make_folder(self._final.parent)
            opened.push(self._discard_at_error)
            reach(Point.FILE_NAMED)
            self._sink = opened.enter_context(pa.OSFile(str(self._temporary), "wb"))
            self._settling = opened.enter_context(Settling(self._temporary))
            self._writer = opened.enter_context(
                pq.ParquetWriter(
                    self._sink,
                    self._schema,
                    compression=_compression(self._schema),
                    use_dictionary=False,
                    column_encoding={field.name: "DELTA_BINARY_PACKED" for field in self._schema if _is_whole(field.type)},
                    write_statistics=_with_statistics(self._schema, self._role),
                    write_page_checksum=True,
                    store_schema=True,
                )
            )
            self._files = opened.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(OSError):  # of a file that nobody wants any more
            self._files.close()
        _discard(self._temporary)

    def write(self, table: pa.Table) -> None:
        """Add the rows of a table."""
        self._waiting.append(table)
        self._n_waiting += len(table)
        while self._n_waiting >= self._group_rows:
            held = pa.concat_tables(self._waiting)
            self._put(held.slice(0, self._group_rows))
            self._waiting, self._n_waiting = [held.slice(self._group_rows)], self._n_waiting - self._group_rows

    def publish(self, footer: Mapping[str, str] | None = None) -> Output:
        """End the file, with ``footer`` in its key-value metadata, and make it visible."""
        if self._n_waiting or not self._n_written:
            self._put(pa.concat_tables(self._waiting) if self._waiting else self._schema.empty_table())
        with _failing(self._role):
            if footer:
                self._writer.add_key_value_metadata(footer)
            self._writer.close()
            self._sink.close()
            sha256 = publish(self._temporary, self._final, self._settling)
            n_bytes = self._final.stat().st_size
        return Output(role=self._role, path=self._path, sha256=sha256, n_rows=self._n_written, n_bytes=n_bytes)

    def _put(self, group: pa.Table) -> None:
        with _failing(self._role):
            self._writer.write_table(group, row_group_size=self._group_rows)
            self._settling.grown(self._sink.tell())
            reach(Point.FILE_GROWING)
        self._n_written += len(group)

    def _discard_at_error(self, kind: type[BaseException] | None, *_error: object) -> None:
        if kind is not None:
            _discard(self._temporary)


@contextmanager
def _failing(role: Role) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AttemptFailed("write_failed", _said(error), where=f"stage output {role}", remedy=_MEND_DISK) from error


def _compression(schema: pa.Schema) -> dict[str, str]:
    """LZ4, but not for floats: they hardly shrink, and trying doubles the time of writing them (measured). Nor for whole numbers.

    Those are written as differences (DELTA_BINARY_PACKED): beside LZ4 measured smaller by half, a third quicker to write and
    thrice as quick to read, and exact to the ends of 64 bits.
    """
    plain = {field.name: pa.types.is_floating(field.type) or _is_whole(field.type) for field in schema}
    return {name: "none" if is_plain else "lz4" for name, is_plain in plain.items()}


def _is_whole(kind: pa.DataType) -> bool:
    """Whether Parquet holds it as an integer: one, or a time."""
    return bool(pa.types.is_integer(kind) or pa.types.is_temporal(kind)) and not pa.types.is_interval(kind)


def _with_statistics(schema: pa.Schema, role: Role) -> list[str]:
    """Columns whose extremes stand in the footer: what readers pick row groups by, which is never a feature of a snapshot."""
    return [field.name for field in schema if role != "snapshot" or field.name == ACCOUNT_ID]


def publish(temporary: Path, final: Path, settling: Settling | None = None) -> str:
    """Make a written file durable and visible under its final name, never over another; return its SHA-256.

    ``settling``: of the file, where it was followed while it grew. The folder's own entry is made durable too.

    Raises:
        OSError: it could not be done, and nothing new stands under the name; ``FileExistsError`` when it is taken.
    """
    with Settling(temporary) if settling is None else nullcontext(settling) as held:
        return _publish(temporary, final, held)


def _publish(temporary: Path, final: Path, settling: Settling) -> str:
    reach(Point.FILE_WRITTEN)
    settling.sync()
    reach(Point.FILE_SYNCED)
    os.link(temporary, final)  # unlike rename, fails when the name is taken
    try:
        reach(Point.FILE_LINKED)
        temporary.unlink()
        reach(Point.FILE_RENAMED)
        for folder in (final.parent, final.parent.parent):
            _sync_folder(folder)
        reach(Point.FILE_FOLDER_SYNCED)
        now = _now(final)
        sha256 = settling.sha256(final)
        _remember(now, sha256)
        reach(Point.FILE_READ_BACK)
    except OSError:
        _discard(final)  # it was ours: link made it
        raise
    return sha256


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _make_folder(folder: Path) -> None:
    """Make a folder for a file to be published; the entries of those above it are durable, its own will be with the file."""
    if not folder.is_dir():
        above = folder.parent
        if not above.is_dir():
            _make_folder(above)
            _sync_folder(above.parent)
        folder.mkdir(exist_ok=True)


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
                with suppress(PermissionError):  # another user's
                    os.utime(final)  # it is in use from now: `clean` leaves what is young
                return named
            final.unlink()
        _make_folder(folder)
        reach(Point.FILE_NAMED)
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


def stream_of(payload: bytes) -> pa.NativeFile:
    """``payload`` as a file for Arrow to read, copied into memory of Arrow's own.

    Arrow's threads may let go of what they read a moment after the read has returned. Memory of Python's is let go of under the
    interpreter's lock; in a process that is ending at that moment, the thread dies of it and takes the process along (SIGABRT,
    "terminate called without an active exception"), whatever the exit code was to be.
    """
    held = pa.BufferOutputStream()
    held.write(payload)
    return pa.BufferReader(held.getvalue())  # noqa: TID251 (Arrow's own memory)


def verified(path: str, sha256: str) -> Path:
    """``path``, after its bytes were found to have that SHA-256.

    They are hashed once per process (a file of its own when it is read back), and again when the file has changed.

    Raises:
        PartitionError: ``input_digest_mismatch``, or ``file_missing``.
    """
    place = Path(path)
    with _missing_told(place):
        now = _now(place)
        found = _known.get(now) or _hashed(place, now)
    _require_equal(found, sha256, place)
    return place


def open_verified(path: str, sha256: str) -> pa.NativeFile:
    """The file, open, after its bytes were found to have that SHA-256, as `verified` has it.

    One that is hashed here is read once for both: what is read of it then are the very bytes that were hashed, in memory.

    Raises:
        PartitionError: as `verified`.
    """
    place = Path(path)
    with _missing_told(place):
        now = _now(place)
        if now in _known or now.n_bytes > MOST_WHOLE_BYTES:
            return pa.OSFile(str(verified(path, sha256)))
        with pa.OSFile(path) as stream:
            held = stream.read_buffer()
    _require_equal(_remember(now, hashlib.sha256(held).hexdigest()), sha256, place)
    return pa.BufferReader(held)  # noqa: TID251 (Arrow's own memory: an OSFile's)


@contextmanager
def _missing_told(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PartitionError(
            "file_missing",
            f"cannot be read: {os.strerror(error.errno or 0)}",
            where=place.name,
            remedy="restore the file, or start a run with --again",
        ) from error


def _require_equal(found: str, sha256: str, place: Path) -> None:
    if found != sha256:
        raise PartitionError(
            "input_digest_mismatch",
            "the file's bytes are not those that were recorded",
            where=place.name,
            remedy="restore the file, or start a run with --again",
        )


class _State(NamedTuple):
    """Of a file; when one of these differs, it is another file."""

    path: str
    inode: int
    n_bytes: int
    changed_ns: int


_known: Final[OrderedDict[_State, str]] = OrderedDict()  # what this process has hashed, or written and read back


def _now(path: Path) -> _State:
    stat = path.stat()
    return _State(str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns)


def _hashed(path: Path, before: _State) -> str:
    """SHA-256 of a file; remembered for what it was ``before`` it was read: if it changes meanwhile, it is hashed again."""
    return _remember(before, file_sha256(path))


def _remember(before: _State, sha256: str) -> str:
    while len(_known) >= MOST_KNOWN:
        _known.popitem(last=False)
    _known[before] = sha256
    return sha256
