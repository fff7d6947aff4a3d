"""A scheduler and workers as processes that start at once; whatever dies is started again.

Most workers have no nanny, so that one starts in a tenth of a second; some have, as a team's would. The scheduler gives a
silent worker up after seconds, not minutes, so that one which was stopped wakes to find its partition done by another.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

from tests.acceptance.real_cluster import NO_DASHBOARD, ROOT, kill_family
from tests.chaos.processes import Child

WORKER_TTL_S: Final = 2
NANNIED: Final = 0.15  # share of workers that have a nanny
_OURS: Final = {"distributed.scheduler.worker-ttl": f"{WORKER_TTL_S}s", "distributed.comm.timeouts.connect": "5s"}


def schedule(port: int) -> None:
    """Be a scheduler."""
    import dask
    from distributed.cli.dask_scheduler import main

    dask.config.set(_OURS)
    main.main(["--host", "127.0.0.1", "--port", str(port), *NO_DASHBOARD], standalone_mode=False)


def work(address: str, folder: str, armed: str, *, nanny: bool) -> None:
    """Be a worker, with a failpoint armed in it."""
    import dask
    from distributed.cli.dask_worker import main

    from batchscore.failpoints import arm

    dask.config.set(_OURS)
    arm(armed)
    arguments = [address, "--nthreads", "1", "--host", "127.0.0.1", *NO_DASHBOARD, "--death-timeout", "10"]
    nannied = "--nanny" if nanny else "--no-nanny"
    main.main([*arguments, "--local-directory", folder, nannied], standalone_mode=False)


class Cluster:
    """The scheduler and ``n_workers`` workers on loopback. ``chance`` draws which is hit, and which have a nanny."""

    def __init__(self, folder: Path, chance: random.Random, n_workers: int = 2) -> None:
        self._folder, self._chance, self._n_workers = folder, chance, n_workers
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self._scheduler: Child | None = None
        self._workers: list[Child] = []

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self.mend()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in [*self._workers, self._scheduler]:
            if process is not None:
                kill_family(process.pid)
                process.kill()

    def mend(self) -> None:
        """Start whatever is not running."""
        if self._scheduler is None or self._scheduler.poll() is not None:
            self._scheduler = Child(schedule, self._port, environment=self._environment)
        self._workers = [worker for worker in self._workers if worker.poll() is None]
        while len(self._workers) < self._n_workers:
            self._start_worker("")

    def scheduler(self) -> Child:
        assert self._scheduler is not None
        return self._scheduler

    def worker(self) -> Child:
        """One of the workers (its nanny, if it has one)."""
        return self._chance.choice(self._workers)

    def kill_worker(self) -> None:
        """SIGKILL of a worker; of its process below the nanny, or of both."""
        worker = self.worker()
        below = _below(worker.pid)
        if below and self._chance.random() < 0.7:
            below[0].kill()
            return
        kill_family(worker.pid)
        worker.kill()

    def sicken_worker(self, armed: str) -> None:
        """Put in the place of a worker one whose disk fails."""
        worker = self.worker()
        kill_family(worker.pid)
        worker.kill()
        self._workers.remove(worker)
        self._start_worker(armed)

    def _start_worker(self, armed: str) -> None:
        nanny = not armed and self._chance.random() < NANNIED
        self._workers.append(Child(_work, self.address, str(self._folder), armed, nanny, environment=self._environment))


def _work(address: str, folder: str, armed: str, nanny: bool) -> None:
    os.chdir(folder)
    work(address, folder, armed, nanny=nanny)


def _below(pid: int) -> list[psutil.Process]:
    """Worker processes of a nanny; none where there is no nanny."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [child for child in psutil.Process(pid).children() if "spawn_main" in " ".join(child.cmdline())]
    return []
