"""Durable files: written whole or not at all, read back before anyone is told, named by digest.

Every file is made under a temporary name (those of attempts by `drafts`) and published: fsync (`settling`: of a large file it has
little left to wait for), a rename that never overwrites, fsync of the folder, read back and hashed. What is on disk under a final
name is complete. Readers check the SHA-256 of what they open through `verified`, once per process and file as it stands.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Final, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.errors import Interrupted, PartitionError
from batchscore.failpoints import Point, reach
from batchscore.plan import Reference
from batchscore.settling import Settling

MOST_KNOWN: Final = 4_096  # files whose digest a process remembers
MOST_WHOLE_BYTES: Final = 64 << 20  # of a file that is held in memory to be hashed and read in one
MEND_DISK: Final = "free space or mend the disk"
Role = Literal["snapshot", "groups", "events", "rollup", "scores", "rejects", "reasons", "days", "closer_look"]


def file_sha256(path: Path) -> str:
    """SHA-256 (64 hex) of a file's bytes."""
    with path.open("rb", buffering=0) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
            sync_folder(folder)
        reach(Point.FILE_FOLDER_SYNCED)
        now = _now(final)
        sha256 = settling.sha256(final)
        _remember(now, sha256)
        reach(Point.FILE_READ_BACK)
    except OSError:
        discard(final)  # it was ours: link made it
        raise
    return sha256


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder for a file to be published; the entries of those above it are durable, its own will be with the file."""
    if not folder.is_dir():
        above = folder.parent
        if not above.is_dir():
            make_folder(above)
            sync_folder(above.parent)
        folder.mkdir(exist_ok=True)


def discard(path: Path) -> None:
    """Remove a file of ours; that it cannot be removed must not hide why it has to be."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def in_words(error: OSError) -> str:
    """What is told of a disk's error: no name of a file, which a path in it could carry."""
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
        make_folder(folder)
        reach(Point.FILE_NAMED)
        try:
            temporary.write_bytes(payload)
            with suppress(FileExistsError):  # another driver wrote the same bytes first
                publish(temporary, final)
        finally:
            discard(temporary)
    except OSError as error:
        raise Interrupted("write_failed", in_words(error), where=f"{folder.name}/{final.name}", remedy=MEND_DISK) from error
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
