"""A run survives the SIGKILL of its driver, its workers and its scheduler, and ends with the same bits as one left alone."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from batchscore.attempt import attempt
from batchscore.errors import Refused
from batchscore.executors.inline import InlineExecutor
from batchscore.pipeline import run
from batchscore.plan import Stage
from batchscore.planner import make_plan
from batchscore.store import open_reader, open_store
from tests.acceptance.real_cluster import ROOT, RealCluster
from tests.run_digest import run_digest
from tests.small_world import SmallWorld, make_small_world

N_KILLS = 20
N_ACCOUNTS = 1_500
PARTITION_ROWS = 12  # some 120 score partitions
DEADLINE_S = 400


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> SmallWorld:
    return make_small_world(tmp_path_factory.mktemp("kills"), n_accounts=N_ACCOUNTS)


@pytest.fixture(scope="module")
def undisturbed(world: SmallWorld) -> str:
    plan = make_plan(world.spec(store="undisturbed", partition_rows=str(PARTITION_ROWS)))
    row = run(
        plan, executor=InlineExecutor(attempt), store=open_store(Path(plan.spec.store), "integer"), observer=lambda _event: None
    )
    return run_digest(Path(plan.spec.store), row.run_id)


class Driver:
    """The driver as a process; started again whenever it has died or given up."""

    def __init__(self, world: SmallWorld, address: str) -> None:
        self._command = [sys.executable, "-m", "tests.acceptance.kill_driver", str(world.spec_path), address]
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )

    def finished(self) -> bool:
        """Whether it has ended well; one that has not is started again."""
        code = self.process.poll()
        if code is not None and code != 0:
            self.process = self._start()
        return code == 0


def n_committed(store: Path) -> int:
    """Score partitions committed so far, as any other process sees it; -1 before there is a store."""
    try:
        reader = open_reader(store)
    except Refused:
        return -1
    return sum(stage.n_committed for row in reader.runs() for stage in reader.stages(row.run_id))


@pytest.mark.slow
@pytest.mark.timeout(DEADLINE_S * 2)
def test_twenty_random_kills_lose_nothing_and_double_nothing(world: SmallWorld, undisturbed: str, tmp_path: Path) -> None:
    chance = random.Random(20261123)
    kills: Counter[str] = Counter()
    n_runs, deadline = 0, time.monotonic() + DEADLINE_S
    with RealCluster(tmp_path) as cluster:
        while sum(kills.values()) < N_KILLS:
            n_runs += 1
            store = world.folder / f"killed-{n_runs}"
            world.spec(store=store.name, partition_rows=str(PARTITION_ROWS))
            driver = Driver(world, cluster.address)
            progress, next_kill_at = -1, chance.randrange(1, 30)
            while not driver.finished():
                assert time.monotonic() < deadline, f"no end after {dict(kills)}"
                cluster.mend()
                committed = n_committed(store)
                assert committed >= progress, "progress never goes back"
                progress = committed
                if committed >= next_kill_at and sum(kills.values()) < N_KILLS:
                    kind = chance.choice(["driver", "worker", "worker", "scheduler"])
                    kills[kind] += _kill(kind, driver, cluster, chance)
                    next_kill_at = committed + chance.randrange(5, 40)
                time.sleep(0.05)
            (row,) = open_reader(store).runs()
            assert row.state == "finished"
            stages = {stage.stage: stage for stage in open_reader(store).stages(row.run_id)}
            assert stages[Stage.SCORE].n_partitions >= 100
            assert sum(stage.n_quarantined for stage in stages.values()) == 0, "no innocent is blamed"
            assert run_digest(store, row.run_id) == undisturbed
    assert sum(kills.values()) == N_KILLS
    print(f"{N_KILLS} kills {dict(kills)} over {n_runs} runs of at least 100 partitions: equal, 0 lost, 0 doubled")


def _kill(kind: str, driver: Driver, cluster: RealCluster, chance: random.Random) -> bool:
    if kind == "driver":
        driver.process.kill()
        driver.process.wait()
        return True
    return cluster.kill_scheduler() if kind == "scheduler" else cluster.kill_worker(chance)
