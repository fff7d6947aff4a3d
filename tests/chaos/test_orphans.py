"""Of a test run that is killed nothing is left: neither what it forked, stopped or not, nor what those started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.acceptance.real_cluster import ROOT

RUN = """
import os, random, signal, sys, time
from pathlib import Path
import psutil
from tests.acceptance.real_cluster import below
from tests.chaos.cluster import Cluster
folder = Path(sys.argv[1])
class Nannied(random.Random):
    def random(self):
        return 0.0
with Cluster(folder, Nannied(1), n_workers=2) as cluster:
    deadline = time.monotonic() + 60
    while not all(below(worker.pid) for worker in cluster._workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    workers = [below(nanny.pid)[0] for nanny in cluster._workers]
    workers[0].send_signal(signal.SIGSTOP)
    cluster.scheduler().stop()
    nannies = [psutil.Process(nanny.pid) for nanny in cluster._workers]
    everybody = [psutil.Process(cluster.scheduler().pid), *nannies, *workers]
    (folder / "pids.part").write_text(" ".join(str(process.pid) for process in everybody))
    (folder / "pids.part").rename(folder / "pids")
    time.sleep(600)
"""


def test_a_killed_test_run_leaves_no_process(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(f"if __name__ == '__main__':\n    exec({RUN!r})\n")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, script, str(tmp_path)], env=environment, stdout=subprocess.DEVNULL) as killed:
        try:
            deadline = time.monotonic() + 90
            while not (tmp_path / "pids").exists():
                assert killed.poll() is None, "the cluster did not start"
                assert time.monotonic() < deadline
                time.sleep(0.05)
            left = []
            for pid in (tmp_path / "pids").read_text().split():
                with contextlib.suppress(psutil.NoSuchProcess):
                    left.append(psutil.Process(int(pid)))
            assert len(left) == 5
        finally:
            killed.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while (alive := [process for process in left if lives(process)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    names = [f"{process.status()}: {' '.join(process.cmdline())}" for process in alive]
    for process in alive:
        process.kill()
    assert not names


def lives(process: psutil.Process) -> bool:
    """Whether it is there, and no zombie, which waits for a parent that may never ask."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False
