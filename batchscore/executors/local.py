"""A cluster of this machine's processes: ours, so that it may be ended hard and replaced. Loopback only, one thread a worker."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final, Self

import dask
from distributed import Client, LocalCluster

CONNECT_TIMEOUT_S: Final = 10
CLOSE_WITHIN_S: Final = 5
_CONFIG: Final = {
    "distributed.worker.multiprocessing-method": "spawn",
    "distributed.scheduler.allowed-failures": 100,  # we count suspects ourselves
    # Each nanny starts its worker anew, however often. By default Dask ends a nanny, and starts none in its place, where a worker
    # that was lost 15 s ago is away at that moment: one that starts slowly, or that came and was lost again.
    "distributed.deploy.lost-worker-timeout": "1000 days",
    "distributed.worker.profile.enabled": False,  # a hundred looks a second at every worker's stack, which nobody reads
}


class OwnCluster:
    """Scheduler and nannies in this process, workers in processes of their own. A context manager: they end with the block."""

    def __init__(self, n_workers: int | None) -> None:
        self._n_workers = n_workers or os.cpu_count() or 1
        self._config = contextlib.ExitStack()
        self._cluster: LocalCluster
        self.client: Client

    def __enter__(self) -> Self:
        self._config.enter_context(dask.config.set(_CONFIG))  # as long as nannies may start workers
        with contextlib.ExitStack() as undone:
            undone.callback(self._config.close)
            self._open()
            undone.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._config:
            self._close(hard=kind is not None)

    def replace(self) -> Client:
        """End all of it, however stuck, and start another; the new one's client."""
        self._close(hard=True)
        self._open()
        return self.client

    def _open(self) -> None:
        with _interrupts_ignored():
            self._cluster = LocalCluster(
                n_workers=self._n_workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                silence_logs=False if "version" in dask.config.get("logging", {}) else logging.ERROR,  # a log was asked for
                memory_limit="auto",
            )
            try:
                self.client = Client(self._cluster, timeout=CONNECT_TIMEOUT_S)
            except BaseException:
                self._cluster.close(timeout=CLOSE_WITHIN_S)
                raise

    def _close(self, *, hard: bool) -> None:
        """``hard``: workers may be in the middle of an attempt, or stopped, and are not asked."""
        if hard:
            for nanny in list(self._cluster.workers.values()):
                if (pid := getattr(nanny, "pid", None)) is not None:
                    with contextlib.suppress(ProcessLookupError):
                        nanny.close_gracefully(reason="batchscore ends its cluster")  # its worker is not started again
                        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            self.client.close(timeout=CLOSE_WITHIN_S)
        with contextlib.suppress(TimeoutError):
            self._cluster.close(timeout=CLOSE_WITHIN_S)


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ctrl-C reaches the whole process group: workers that start now inherit this, so the driver alone decides how to stop."""
    before: Any = signal.getsignal(signal.SIGINT)
    try:
        with contextlib.suppress(ValueError):  # not the main thread: nobody's Ctrl-C comes here
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        yield
    finally:
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGINT, before)
