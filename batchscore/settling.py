"""A growing file on its way to the disk: its parts are on their way while the next are made, so its sync waits for little.

A sync asks the disk for two things: to take the bytes, and to make file and name durable. Only the second has to wait for the end
of the file. Nothing is said of a part before the whole is synced, read back and hashed: what the system begins early it may also
leave, and an error of it is the sync's to tell. Threads that would sync and hash behind the writer cost more than they save
where workers use all cores (tests/GUARANTEES.md has the figures).
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

STEP_BYTES: Final = 1 << 20  # at once: with 4 MiB the disk begins later, and a freeze took 4 to 8 % longer
_READ_BYTES: Final = 1 << 18  # at once: what a core's cache holds
_SYNC_FILE_RANGE_WRITE: Final = 2  # begin, and do not wait (linux/fs.h)


class Settling:
    """Makes one file durable, which its writer only appends to, and hashes it. A context manager: it holds the file open."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._n_begun = self._n_synced = 0  # bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._file)

    def grown(self, n_bytes: int) -> None:
        """Say that so many bytes stand in the file, and will not change."""
        if n_bytes - self._n_begun >= STEP_BYTES:
            begin_writing(self._file, self._n_begun, n_bytes)
            self._n_begun = n_bytes

    def sync(self) -> None:
        """Return when the whole file, which has ended, is durable.

        Raises:
            OSError: it is not.
        """
        self._n_synced = os.fstat(self._file).st_size
        os.fsync(self._file)

    def sha256(self, final: Path) -> str:
        """SHA-256 (64 hex) of the synced file, as read back from what stands under the name ``final``.

        Raises:
            OSError: it could not be read, or another file stands there.
        """
        there, held = final.stat(), os.fstat(self._file)
        if (there.st_dev, there.st_ino, there.st_size) != (held.st_dev, held.st_ino, self._n_synced):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sha256, n_hashed = hashlib.sha256(), 0
        part = memoryview(bytearray(min(_READ_BYTES, self._n_synced)))
        while n_hashed < self._n_synced:
            n_read = os.preadv(self._file, [part[: self._n_synced - n_hashed]], n_hashed)
            if not n_read:
                raise OSError(errno.EIO, os.strerror(errno.EIO))  # the file is shorter than what was synced
            sha256.update(part[:n_read])
            n_hashed += n_read
        return sha256.hexdigest()


def begin_writing(file: int, first: int, end: int) -> None:
    """Ask the system to bring bytes of an open file to the disk soon; it need not, and whether it could is the sync's to tell."""
    if _sync_file_range is not None:
        _sync_file_range(file, first, end - first, _SYNC_FILE_RANGE_WRITE)


_sync_file_range: Final = getattr(ctypes.CDLL(None), "sync_file_range", None)  # of Linux; elsewhere all is left to the sync
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
