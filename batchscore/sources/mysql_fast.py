"""Reads MySQL through connectorx (extra ``mysql-fast``) in a process of its own: a read past its deadline is given up with it.

connectorx has no timeout, and its messages may hold the URL: the child is given the *name* of the URL, looks it up in the
same environment, answers Arrow or nothing, and says nothing else. Whatever it cannot read is read again by PyMySQL.
"""

from __future__ import annotations

import atexit
import os
import struct
import subprocess
import sys
import threading
from functools import cache
from importlib.util import find_spec
from types import TracebackType
from typing import IO, Final, Self

import pyarrow as pa

from batchscore.errors import AttemptFailed

DEADLINE_S: Final = 60.0  # of one page, which is sized to take half a second
_SIZE: Final = struct.Struct(">q")
_UNREADABLE: Final = -1
_MODULE: Final = "batchscore.sources.mysql_fast_child"


def can_read_fast(url: str) -> bool:
    """Whether connectorx is installed and the URL asks for nothing that only PyMySQL does (certificates to check)."""
    return find_spec("connectorx") is not None and "ssl" not in url.partition("?")[2]


@cache
def kept_reader(url_name: str, url: str) -> FastReader:
    """This process's reader of that URL, kept from attempt to attempt: its child takes longer to start than a page to read.

    The child ends with this process. ``url`` only tells one meaning of the name from another.
    """
    assert url
    reader = FastReader(url_name)
    atexit.register(reader.close)
    return reader


class FastReader:
    """One child process, one read at a time. Answers come through memory that both share: a pipe would copy them thrice.

    ``n_page``: how many rows its last pages had, for whoever reads the next range.
    """

    def __init__(self, url_name: str, *, deadline_s: float = DEADLINE_S) -> None:
        self.n_page: int | None = None
        self._url_name = url_name
        self._deadline_s = deadline_s
        self._shared = -1
        self._child: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the child, if one is there; the next read would start another."""
        with self._turn:
            self._let_go()

    def _let_go(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()  # reaps it and closes its pipes
            os.close(self._shared)

    def read(self, query: str) -> pa.Table | None:
        """The query's result, a copy of its own; None when connectorx cannot read it.

        Raises:
            AttemptFailed: the deadline passed; the child is gone.
        """
        with self._turn:
            return self._read(query)

    def start(self) -> None:
        """Let the child load its libraries while others are at work; the first read would wait for it."""
        with self._turn:
            self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            self._shared = os.memfd_create("batchscore-page")
            command = [sys.executable, "-m", _MODULE, self._url_name, str(self._shared)]
            self._child = subprocess.Popen(  # noqa: S603 (our own module, in our own interpreter)
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, pass_fds=(self._shared,)
            )
        return self._child

    def _read(self, query: str) -> pa.Table | None:
        child, late = self._started(), threading.Event()

        def give_up() -> None:
            late.set()
            child.kill()

        timer = threading.Timer(self._deadline_s, give_up)
        timer.start()
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            answer = _ask(child.stdin, child.stdout, query, self._shared)
        except (BrokenPipeError, EOFError):
            answer = None
        finally:
            timer.cancel()
        if late.is_set():
            self._let_go()
            raise AttemptFailed(
                "attempt_failed", f"a read took longer than {self._deadline_s:g} s and was given up", where="freeze"
            )
        if answer is None and child.poll() is not None:
            self._let_go()  # it died of something: the next page gets a new one
        return answer


def _ask(asked: IO[bytes], answers: IO[bytes], query: str, shared: int) -> pa.Table | None:
    said = query.encode()
    asked.write(_SIZE.pack(len(said)) + said)
    asked.flush()
    (size,) = _SIZE.unpack(_exactly(answers, _SIZE.size))
    if size == _UNREADABLE:
        return None
    with pa.ipc.open_stream(_copied(shared, size)) as stream:
        return stream.read_all()


def _copied(shared: int, size: int) -> pa.Buffer:
    """The child writes its next answer into the same memory."""
    held = pa.allocate_buffer(size)
    view, n_read = memoryview(held), 0
    while n_read < size:
        n_read += os.preadv(shared, [view[n_read:]], n_read)
    return held


def _exactly(pipe: IO[bytes], n_bytes: int) -> bytes:
    held = pipe.read(n_bytes)
    if len(held) != n_bytes:
        raise EOFError
    return held
