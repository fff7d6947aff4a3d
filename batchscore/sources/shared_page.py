"""Memory in which one process hands a table to another: without a name, passed on as a descriptor, and used again.

Fresh memory costs both sides more than the copy into it: the kernel zeroes it, maps it page by page, and takes it apart. So one
piece is kept between them, and written anew once nothing that the reader made of it is left: it says so when it asks, and only
it can know. While that piece is in use, and for what is too large to keep, memory is fresh.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import weakref
from typing import Final

import pyarrow as pa

MOST_KEPT_BYTES: Final = 64 << 20
_SEALS: Final = fcntl.F_SEAL_SHRINK  # what somebody has mapped stays there


class PageSender:
    """Of the process that answers."""

    def __init__(self) -> None:
        self._kept: int | None = None
        self._mapped: mmap.mmap | None = None

    def put(self, table: pa.Table, *, kept_is_free: bool) -> tuple[int, int, bool]:
        """Put a table into memory: (its descriptor, bytes, whether it is the piece that is kept). Whoever gets it closes it."""
        size = _size(table)
        if not kept_is_free or size > MOST_KEPT_BYTES:
            page = os.memfd_create("batchscore-page")
            with pa.OSFile(f"/proc/self/fd/{page}", "wb") as sink:
                _write(table, sink)
            return page, size, False
        if self._kept is None:
            self._kept = os.memfd_create("batchscore-kept-page", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            fcntl.fcntl(self._kept, fcntl.F_ADD_SEALS, _SEALS)
        if self._mapped is None or len(self._mapped) < size:
            os.ftruncate(self._kept, size)
            self._mapped = mmap.mmap(self._kept, size)
        with pa.FixedSizeBufferWriter(pa.py_buffer(self._mapped)) as sink:
            _write(table, sink)
        return os.dup(self._kept), size, True


class PageReceiver:
    """Of the process that asks."""

    def __init__(self) -> None:
        self._mapped: mmap.mmap | None = None
        self._lent: weakref.ref[memoryview] | None = None

    @property
    def kept_is_free(self) -> bool:
        """Whether nothing reads the kept piece any more: no table made of it, and nothing made of that without a copy."""
        return self._lent is None or self._lent() is None

    def take(self, page: int, size: int, *, is_kept: bool) -> pa.Table:
        """The table in that memory, which is not copied; the descriptor is closed."""
        with pa.ipc.open_stream(self._buffer(page, size, is_kept=is_kept)) as stream:
            return stream.read_all()

    def _buffer(self, page: int, size: int, *, is_kept: bool) -> pa.Buffer:
        try:
            if not is_kept:
                return pa.py_buffer(_mapped(page, size))
            assert self.kept_is_free, "it was written while somebody read it"
            if self._mapped is None or len(self._mapped) < size:
                self._mapped = _mapped(page, size)
        finally:
            os.close(page)
        view = memoryview(self._mapped)[:size]  # Arrow holds on to it as long as to anything that is made of it
        self._lent = weakref.ref(view)
        return pa.py_buffer(view)


def _mapped(page: int, size: int) -> mmap.mmap:
    return mmap.mmap(page, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, prot=mmap.PROT_READ)


def _size(table: pa.Table) -> int:
    counted = pa.MockOutputStream()
    _write(table, counted)
    return int(counted.size())


def _write(table: pa.Table, sink: pa.NativeFile) -> None:
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
