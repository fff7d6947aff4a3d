"""A scheduler and workers as processes that start at once; whatever dies is started again.

Most workers have no nanny, so that one starts in a tenth of a second; some have, as a team's would. The scheduler gives a
silent worker up after seconds, not minutes, so that one which was stopped wakes to find its partition done by another.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Final

import psutil

from tests.acceptance.real_cluster import NO_DASHBOARD, ROOT, MendedCluster, below, end
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


def work(address: str, folder: str, armed: str, fired: Path | None, *, nanny: bool) -> None:
    """Be a worker, with a failpoint armed in it (`failpoints.arm`)."""
    import dask
    from distributed.cli.dask_worker import main

    from batchscore.failpoints import arm

    dask.config.set(_OURS)
    arm(armed, fired)
    arguments = [address, "--nthreads", "1", "--host", "127.0.0.1", *NO_DASHBOARD, "--death-timeout", "10"]
    nannied = "--nanny" if nanny else "--no-nanny"
    main.main([*arguments, "--local-directory", folder, nannied], standalone_mode=False)


class Cluster(MendedCluster[Child]):
    """``chance`` draws which of the workers is hit, and which have a nanny."""

    def __init__(self, folder: Path, chance: random.Random, n_workers: int = 2) -> None:
        super().__init__(n_workers)
        self._folder, self._chance = folder, chance
        self._environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def scheduler(self) -> Child:
        assert self._scheduler is not None
        return self._scheduler

    def worker(self) -> psutil.Process:
        """One of the processes that work. Raises psutil.NoSuchProcess where it has died by itself."""
        worker = self._chance.choice(self._workers)
        return next(iter(below(worker.pid)), None) or psutil.Process(worker.pid)

    def kill_worker(self) -> None:
        """SIGKILL of a worker; of its process below the nanny, or of both."""
        worker = self._chance.choice(self._workers)
        nannied = below(worker.pid)
        if nannied and self._chance.random() < 0.7:
            nannied[0].kill()
        else:
            end(worker)

    def sicken_worker(self, armed: str, fired: Path) -> None:
        """Put in the place of a worker one whose disk fails."""
        worker = self._chance.choice(self._workers)
        end(worker)
        self._workers.remove(worker)
        self._workers.append(self._start_worker(armed, fired, nanny=False))

    def _started_scheduler(self) -> Child:
        return Child(schedule, self._port, environment=self._environment)

    def _started_worker(self, _number: int) -> Child:
        return self._start_worker("", None, nanny=self._chance.random() < NANNIED)

    def _start_worker(self, armed: str, fired: Path | None, *, nanny: bool) -> Child:
        return Child(_work, self.address, str(self._folder), armed, fired, nanny, environment=self._environment)


def _work(address: str, folder: str, armed: str, fired: Path | None, nanny: bool) -> None:
    os.chdir(folder)
    work(address, folder, armed, fired, nanny=nanny)
