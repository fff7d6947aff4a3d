"""A scheduler and workers as processes of their own; whatever dies is started again. Here with a team's command lines."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

import psutil

from tests.orphans import DYING_WITH_US
from tests.ports import reserved_port

ROOT = Path(__file__).parents[2]
# Without the second a scheduler still answers HTTP, at port 8787 of every interface, where something else may look for its own.
NO_DASHBOARD = ("--no-dashboard", "--dashboard-address", "127.0.0.1:0")


class Process(Protocol):
    """What a cluster wants of a process that it started."""

    pid: int

    def poll(self) -> int | None: ...
    def wait(self) -> int: ...


P = TypeVar("P", bound=Process)


class MendedCluster(ABC, Generic[P]):
    """A scheduler at a free port of loopback, and workers; what of them is not running, `mend` starts."""

    def __init__(self, n_workers: int) -> None:
        self._n_workers = n_workers
        self._port: int = reserved_port()
        self._scheduler: P | None = None
        self._workers: list[P] = []

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self.mend()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in [*self._workers, self._scheduler]:
            if process is not None:
                end(process)

    def mend(self) -> None:
        """Start whatever is not running."""
        if self._scheduler is None or self._scheduler.poll() is not None:
            self._scheduler = self._started_scheduler()
        self._workers = [worker for worker in self._workers if worker.poll() is None]
        while len(self._workers) < self._n_workers:
            self._workers.append(self._started_worker(len(self._workers)))

    @abstractmethod
    def _started_scheduler(self) -> P: ...

    @abstractmethod
    def _started_worker(self, number: int) -> P:
        """``number``: of the workers that are running."""


class RealCluster(MendedCluster["subprocess.Popen[bytes]"]):
    """``dask scheduler`` and ``dask worker`` (with nannies)."""

    def __init__(self, folder: Path, n_workers: int = 2, *, unseen: Path | None = None) -> None:
        """``unseen``: a folder in whose place the last worker has an empty one of its own, as on a host without the mount."""
        super().__init__(n_workers)
        self._folder = folder
        self._unseen = unseen

    def _started_scheduler(self) -> subprocess.Popen[bytes]:
        return self._start("scheduler", "--host", "127.0.0.1", "--port", str(self._port), *NO_DASHBOARD)

    def _started_worker(self, number: int) -> subprocess.Popen[bytes]:
        return self._start_worker(unseen=self._unseen if number == self._n_workers - 1 else None)

    def _start_worker(self, *, unseen: Path | None = None, found_first: Path | None = None) -> subprocess.Popen[bytes]:
        options = {"--nthreads": "1", "--host": "127.0.0.1", "--death-timeout": "20", "--local-directory": str(self._folder)}
        said = [word for option in options.items() for word in option]
        return self._start("worker", self.address, *said, *NO_DASHBOARD, unseen=unseen, found_first=found_first)

    def stop_scheduler(self) -> None:
        """SIGSTOP: it is there, and answers nobody."""
        assert self._scheduler is not None
        self._scheduler.send_signal(signal.SIGSTOP)

    def add_worker(self, *, found_first: Path) -> None:
        """One more worker, which finds packages in that folder before those of its environment."""
        self._workers.append(self._start_worker(found_first=found_first))

    def kill_scheduler(self) -> bool:
        if self._scheduler is None or self._scheduler.poll() is not None:
            return False
        self._scheduler.kill()
        self._scheduler.wait()
        return True

    def kill_worker(self, chance: random.Random) -> bool:
        """SIGKILL of a worker process (its nanny lives) or of nanny and worker both."""
        if not self._workers:
            return False
        nanny = chance.choice(self._workers)
        if chance.random() < 0.3:
            end(nanny)
            return True
        workers = below(nanny.pid)
        for worker in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()
        return bool(workers)

    def _start(
        self, what: str, *arguments: str, unseen: Path | None = None, found_first: Path | None = None
    ) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(map(str, (*([found_first] if found_first else []), ROOT)))
        environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [*DYING_WITH_US, *(apart(unseen) if unseen else ()), str(Path(sys.executable).with_name("dask")), what, *arguments],
            env=environment,
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def apart(unseen: Path) -> list[str]:
    """The command line before another that runs it with an empty folder of its own in the place of ``unseen``."""
    mounted = 'mount -t tmpfs none "$0" && exec "$@"'
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mounted, str(unseen)]


def below(pid: int) -> list[psutil.Process]:
    """Worker processes of a nanny; none where there is no nanny."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [child for child in psutil.Process(pid).children() if "spawn_main" in " ".join(child.cmdline())]
    return []


def end(process: Process) -> None:
    """SIGKILL of a process and all below it, waited for."""
    kill_family(process.pid)
    process.wait()


def kill_family(pid: int) -> None:
    """SIGKILL of a process and all below it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
