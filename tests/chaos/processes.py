"""Processes that are made to die: forked from one that has imported everything and done nothing, so that each starts at once."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

import psutil

CONTEXT: Final = multiprocessing.get_context("forkserver")
PRELOADED: Final = (
    "tests.chaos.dying_server", "tests.chaos.story", "tests.chaos.quiet", "tests.chaos.driver", "tests.chaos.cluster",
    "distributed.cli.dask_scheduler", "distributed.cli.dask_worker", "batchscore.store.migrate", "pandas", "pymysql", "xgboost",
)  # fmt: skip
CONTEXT.set_forkserver_preload(list(PRELOADED))
PATIENCE_S: Final = 60.0


class Child:
    """A process that does ``work``. A context manager: whatever becomes of the test, it ends."""

    def __init__(self, work: Callable[..., None], *arguments: Any, environment: dict[str, str] | None = None) -> None:
        """``environment``: what of this process's environment it needs; it has that of the first child."""
        from tests.chaos import quiet

        self._process = CONTEXT.Process(target=quiet.quietly, args=(work, arguments, environment or {}))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it lives."""
        return self._process.exitcode

    def wait(self, timeout: float = PATIENCE_S) -> int:
        """Its exit code, once it has ended."""
        self._process.join(timeout)
        code = self._process.exitcode
        assert code is not None, "the process hangs"
        return code

    def wait_until_stopped(self) -> bool:
        """Whether it stands still (SIGSTOP); False when it has ended without."""
        deadline = time.monotonic() + PATIENCE_S
        while self.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                if psutil.Process(self.pid).status() == psutil.STATUS_STOPPED:
                    return True
            assert time.monotonic() < deadline, "the process neither stops nor ends"
            time.sleep(0.005)
        return False

    def stop(self) -> None:
        """SIGSTOP: all its threads stand still."""
        self._signal(signal.SIGSTOP)

    def wake(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL."""
        self._signal(signal.SIGKILL)
        self._process.join(PATIENCE_S)

    def _signal(self, what: signal.Signals) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, what)
