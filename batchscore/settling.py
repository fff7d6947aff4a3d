"""A growing file on its way to the disk: what was written is synced, read back and hashed behind the writer, by two threads.

A sync waits for the disk, and it and SHA-256 give Python's lock back: so most of a large file is made durable while it is
written, and little is left to wait for at its end. Each byte is read back from the file and hashed after it was synced, as if
all were done at the end. A file that never grows to `STEP_BYTES` has no threads, and is done at the end.
"""

from __future__ import annotations

import errno
import hashlib
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

STEP_BYTES: Final = 1 << 20  # behind which a sync costs the disk little more than the bytes; 4 and 16 MiB wait longer
_READ_BYTES: Final = 1 << 18  # at once: what a core's cache holds
_Ends = queue.SimpleQueue[int | None]  # up to which byte something is to be done; None: no further


class Settling:
    """Syncs and hashes one file, which its writer only appends to. A context manager: with the block it lets go of the file."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._sha256 = hashlib.sha256()
        self._n_asked = self._n_hashed = self._n_synced = 0  # bytes; the last of the whole file
        self._to_sync: _Ends = queue.SimpleQueue()
        self._to_hash: _Ends = queue.SimpleQueue()
        self._threads: list[tuple[_Ends, threading.Thread]] = []
        self._error: OSError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()
        os.close(self._file)

    def grown(self, n_bytes: int) -> None:
        """Say that so many bytes stand in the file, and will not change."""
        if n_bytes - self._n_asked < STEP_BYTES:
            return
        if not self._threads:
            self._start(self._to_sync, self._sync_to)
            self._start(self._to_hash, self._hash_to)
        self._to_sync.put(n_bytes)
        self._n_asked = n_bytes

    def sync(self) -> None:
        """Return when the whole file, which has ended, is durable.

        Raises:
            OSError: it is not, or a part of it could not be read back.
        """
        self._stop()
        if self._error is not None:
            raise self._error
        self._n_synced = os.fstat(self._file).st_size
        os.fsync(self._file)

    def sha256(self, final: Path) -> str:
        """SHA-256 (64 hex) of the synced file, as read back from what stands under the name ``final``.

        Raises:
            OSError: it could not be read, or another file stands there.
        """
        self._hash_to(self._n_synced)
        there, held = final.stat(), os.fstat(self._file)
        if (there.st_dev, there.st_ino, there.st_size) != (held.st_dev, held.st_ino, self._n_synced):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self._sha256.hexdigest()

    def _start(self, ends: _Ends, work: Callable[[int], None]) -> None:
        thread = threading.Thread(target=self._follow, args=(ends, work), name="batchscore-settling", daemon=True)
        thread.start()
        self._threads.append((ends, thread))

    def _follow(self, ends: _Ends, work: Callable[[int], None]) -> None:
        try:
            while (end := ends.get()) is not None:
                work(end)
        except OSError as error:
            self._error = error

    def _sync_to(self, end: int) -> None:
        os.fdatasync(self._file)
        self._to_hash.put(end)

    def _hash_to(self, end: int) -> None:
        held = memoryview(bytearray(min(_READ_BYTES, end - self._n_hashed)))
        while self._n_hashed < end:
            n_read = os.preadv(self._file, [held[: end - self._n_hashed]], self._n_hashed)
            if not n_read:
                raise OSError(errno.EIO, os.strerror(errno.EIO))  # the file is shorter than what was written
            self._sha256.update(held[:n_read])
            self._n_hashed += n_read

    def _stop(self) -> None:
        for ends, thread in self._threads:  # the first gives the second what it still has
            ends.put(None)
            thread.join()
        self._threads.clear()
