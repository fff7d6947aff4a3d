"""Reads MySQL through connectorx (extra ``mysql-fast``) in a process of its own: a read past its deadline is given up with it.

connectorx has no timeout, and its messages may hold the URL: the child is given the *name* of the URL, looks it up in the
same environment, answers Arrow or nothing, and says nothing else. Whatever it cannot read is read again by PyMySQL. A read is
asked for and answered apart, so that whoever asks can work in between.
"""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import TracebackType
from typing import Final, Self

import pyarrow as pa

from batchscore.errors import AttemptFailed
from batchscore.sources import mysql_fast_child
from batchscore.sources.mysql_fast_child import ANSWER, ASK, UNREADABLE
from batchscore.sources.shared_page import PageReceiver

DEADLINE_S: Final = 60.0  # of one page, which is sized to take half a second
# connectorx asks for memory row by row, 32 rows at a time: glibc keeps as many pieces of a size at hand (7 are its default),
# which saves 3 % of the child's CPU. Other systems pass it over, and what the operator sets comes first.
_QUICK_MEMORY: Final = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=127"}


def can_read_fast(url: str) -> bool:
    """Whether connectorx is installed and the URL asks for nothing that only PyMySQL does (certificates to check)."""
    return find_spec("connectorx") is not None and "ssl" not in url.partition("?")[2]


class FastReader:
    """One child process, one read at a time. Each answer is in memory that is mapped here: a pipe would copy it thrice.

    ``n_page``: how many rows its last pages had, for whoever reads the next range. ``seconds``: what its last read took.
    """

    def __init__(self, url_name: str, *, deadline_s: float = DEADLINE_S) -> None:
        self.n_page: int | None = None
        self.seconds = 0.0
        self._url_name = url_name
        self._deadline_s = deadline_s
        self._answers: socket.socket
        self._child: subprocess.Popen[bytes] | None = None
        self._asked_at: float | None = None
        self._memory = PageReceiver()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def is_asked(self) -> bool:
        """Whether a read was asked for that was not answered."""
        return self._asked_at is not None

    def close(self) -> None:
        """End the child, if one is there; the next read would start another."""
        child, self._child, self._asked_at = self._child, None, None
        if child is not None:
            child.kill()
            child.communicate()  # reaps it and closes its pipes
            self._answers.close()
            self._memory = PageReceiver()  # the next child has memory of its own; what was made of the old one stays good

    def start(self) -> None:
        """Let the child load its libraries while others are at work; the first read would wait for it."""
        if self._child is None:
            # Whole messages, or the end: half an answer cannot come.
            self._answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                command = [sys.executable, "-m", mysql_fast_child.__name__, self._url_name, str(theirs.fileno())]
                self._child = subprocess.Popen(  # noqa: S603 (our own module, in our own interpreter)
                    command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),), env=_QUICK_MEMORY | dict(os.environ),
                )  # fmt: skip

    def ask(self, query: str) -> None:
        """Begin a read; `answer` is to be called next."""
        assert self._asked_at is None, "one read at a time"
        self.start()
        assert self._child is not None
        assert self._child.stdin is not None
        said = query.encode()
        self._asked_at = time.monotonic()
        try:
            self._child.stdin.write(ASK.pack(len(said), self._memory.kept_is_free) + said)
        except BrokenPipeError:
            return  # `answer` finds the child gone

    def answer(self) -> pa.Table | None:
        """The result of the read that was asked for; None when connectorx cannot read it.

        Raises:
            AttemptFailed: the deadline passed; the child is gone.
        """
        assert self._asked_at is not None, "nothing was asked"
        left_s = self._asked_at + self._deadline_s - time.monotonic()
        self._asked_at = None
        self._answers.settimeout(max(1e-3, left_s))
        try:
            head, pages, _, _ = socket.recv_fds(self._answers, ANSWER.size, 1, socket.MSG_CMSG_CLOEXEC)
        except TimeoutError:
            self.close()
            raise AttemptFailed(
                "attempt_failed", f"a read took longer than {self._deadline_s:g} s and was given up", where="freeze"
            ) from None
        if not head:
            self.close()  # it died of something: the next read gets a new one
            return None
        size, self.seconds, is_kept = ANSWER.unpack(head)
        if size == UNREADABLE:
            return None
        return self._memory.take(pages[0], size, is_kept=is_kept)

    def read(self, query: str) -> pa.Table | None:
        """Ask and wait for the answer; raises as `answer`."""
        self.ask(query)
        return self.answer()


class _Idle:
    """This process's readers that nobody uses, by the name and meaning of their URL. They end with the process."""

    def __init__(self) -> None:
        self._readers: dict[tuple[str, str], list[FastReader]] = {}
        self._turn = threading.Lock()
        atexit.register(self._close)

    def take(self, name: str, url: str) -> FastReader:
        with self._turn:
            waiting = self._readers.get((name, url))
            return waiting.pop() if waiting else FastReader(name)

    def put(self, name: str, url: str, reader: FastReader) -> None:
        with self._turn:
            self._readers.setdefault((name, url), []).append(reader)

    def _close(self) -> None:
        for reader in [reader for waiting in self._readers.values() for reader in waiting]:
            reader.close()


_IDLE: Final = _Idle()


@contextmanager
def fast_reader(url_name: str, url: str) -> Iterator[FastReader]:
    """A reader of that URL, kept from attempt to attempt: its child takes longer to start than a page to read.

    ``url`` only tells one meaning of the name from another. One that was left with a read unanswered is ended.
    """
    reader = _IDLE.take(url_name, url)
    try:
        reader.start()
        yield reader
    finally:
        if reader.is_asked:
            reader.close()
        _IDLE.put(url_name, url, reader)


def warm_up(url_name: str, url: str) -> None:
    """Let a reader of that URL start while its caller does something else."""
    with fast_reader(url_name, url):
        pass
