"""Guarantee 6: a driver that is killed at 10, 50 and 90 % loses only what was in flight; nothing committed is scored again."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from batchscore.errors import Refused
from batchscore.plan import Stage
from batchscore.store import open_reader
from tests.chaos.cluster import Cluster
from tests.chaos.driver import BEGUN, drive
from tests.chaos.processes import Child
from tests.small_world import make_small_world

N_WORKERS = 2
# Per kill: three tasks a worker are out at a time, and receipts of half a second gather before they are committed.
MOST_AGAIN = 3 * N_WORKERS + 20


def committed(store: Path) -> tuple[str, set[int], int]:
    """The run, the score partitions that are committed, and how many there are; of a run that has not come so far, none."""
    try:
        reader = open_reader(store)
    except Refused:  # it is only being made
        return "", set(), 0
    rows = reader.runs()
    if not rows:
        return "", set(), 0
    run_id = rows[0].run_id
    laid_out = {partition.number for partition in reader.partitions(run_id, Stage.SCORE)}
    left = {partition.number for partition in reader.unfinished(run_id, Stage.SCORE)}
    return run_id, laid_out - left, len(laid_out)


def begun(store: Path) -> Counter[int]:
    """Score partition → how many attempts at it have begun."""
    lines = (store / BEGUN).read_text(encoding="ascii").split("\n") if (store / BEGUN).exists() else []
    return Counter(int(line.split()[1]) for line in lines if line.startswith("score "))


@pytest.mark.timeout(180)
def test_a_driver_killed_at_10_50_and_90_percent_scores_again_only_what_was_in_flight(tmp_path: Path) -> None:
    world = make_small_world(tmp_path, n_accounts=1_200)
    spec = world.spec(partition_rows="12")
    store, before, known = Path(spec.store), Counter[int](), set[int]()
    run_id, n = "", 0
    with Cluster(tmp_path, random.Random(7), N_WORKERS) as cluster:
        for share in (0.1, 0.5, 0.9, None):
            with Child(drive, str(world.spec_path), cluster.address) as driver:
                deadline = time.monotonic() + 60
                while share is not None:
                    _, done, n = committed(store)
                    if n and len(done) >= share * n:
                        break
                    assert driver.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
                if share is None:
                    assert driver.wait() == 0
                driver.kill()
            now = begun(store)
            assert not [number for number in known if now[number] > before[number]], "nothing committed is scored again"
            (run_id, known, n), before = committed(store), now
            in_flight = now.keys() - known
            print(f"ended at {len(known)} of {n} committed, {len(in_flight)} begun and not committed")
            assert len(in_flight) <= MOST_AGAIN
    again = before.total() - n
    print(f"{again} of {n} scores were made again over three kills ({again / n:.1%})")
    assert n >= 90
    assert len(known) == n
    assert not open_reader(store).quarantined(run_id)
