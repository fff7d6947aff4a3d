"""Guarantee 26: a disk that is full or fails at the N-th step of writing is a clean stop, or a second try; the end is equal."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from batchscore.attempt import attempt
from batchscore.executors.inline import InlineExecutor
from batchscore.pipeline import run
from batchscore.planner import make_plan
from batchscore.store import open_reader, open_store
from tests.acceptance.real_cluster import ROOT
from tests.chaos.cells import Stage
from tests.commands import succeeded
from tests.run_digest import run_digest
from tests.small_world import make_small_world

EVERY = bool(os.environ.get("BATCHSCORE_EVERY_FAULT"))
STRIDE = 30  # of some 90 steps
OWN_DISK = ["unshare", "--user", "--map-root-user", "--mount"]


def may_mount() -> bool:
    """Whether this machine lets us have a disk of our own."""
    tried = [*OWN_DISK, "sh", "-c", "mount -t tmpfs -o size=64k none /mnt"]
    return subprocess.run(tried, check=False, capture_output=True).returncode == 0


@pytest.mark.timeout(1_800 if EVERY else 120)
@pytest.mark.parametrize(("how", "first"), [("full", 1), ("io", 12)])
def test_a_disk_that_fails_at_the_nth_step_of_writing_changes_nothing(on_sqlite: Stage, how: str, first: int) -> None:
    """The driver stops clean where it was its own file; an attempt is made again, and no partition is blamed."""
    n_hit = 0
    for at in count(1, 1) if EVERY else count(first, STRIDE):
        store = on_sqlite.make_store(f"{how}-{at}")
        with on_sqlite.child("run", store, f"file *={how}@{at}") as child:
            code = child.wait()
        assert code in {0, 5}, f"step {at}: a clean stop, or a second try"
        reader = open_reader(store)
        (row,) = reader.runs()
        if code == 0 and all(failure.reason != "write_failed" for failure in reader.failures(row.run_id)):
            break  # no run has so many steps
        n_hit += 1
        on_sqlite.whole("run", store)
        on_sqlite.check("run", store)
    assert n_hit >= (90 if EVERY else 3)


@pytest.mark.skipif(not may_mount(), reason="this machine lets nobody mount a disk of its own")
def test_a_store_on_a_disk_that_is_really_full_stops_clean_and_ends_equal_once_there_is_room(tmp_path: Path) -> None:
    world = make_small_world(tmp_path, n_accounts=300)
    plan = make_plan(world.spec(store="roomy"))
    row = run(plan, executor=InlineExecutor(attempt), store=open_store(Path(plan.spec.store), "integer"), observer=lambda _: None)
    (tmp_path / "small").mkdir()
    world.spec(store="small")
    told = succeeded(
        *OWN_DISK, sys.executable, "-m", "tests.chaos.full_disk", tmp_path / "small", world.spec_path,
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    *reasons, digest = told.split()
    assert set(reasons) == {"write_failed"}, "whatever could not be written, that is what is told"
    assert len(reasons) >= 3
    assert digest == run_digest(Path(plan.spec.store), row.run_id)
