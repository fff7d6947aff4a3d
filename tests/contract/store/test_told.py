"""What the trail tells of a run agrees with its rows, whatever people, releases and undos did, in any order."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from batchscore.errors import Refused
from batchscore.flag import Disposition
from batchscore.operations.trail import RowsOfRun, Trail
from batchscore.ports import RunHandle
from batchscore.store import Ledger, ReviewDesk, open_reader
from tests.contract.store.at_the_desk import HOUR, execute, let_claims_run_out, released, says
from tests.contract.store.conftest import make_flag

IDS = range(1, 9)
MOST_RUNS = 8


class Queue:
    """A queue and whoever changes it; each method is something that happens to it, refused or not."""

    def __init__(self, store: Ledger, desk: ReviewDesk, folder: Path, seed: int) -> None:
        self.store, self.desk, self.folder = store, desk, folder
        self.rng = random.Random(seed)
        self.runs: list[RunHandle] = [released(store, folder, "first", *IDS)]

    def happens(self) -> str:
        """One thing, drawn; its name."""
        acts: list[Callable[[], object]] = [
            self.release, self.more, self.claim, self.give_back, self.lapse, self.decide, self.decide, self.settle, self.expire,
            self.undo,
        ]  # fmt: skip
        act = self.rng.choice(acts)
        with suppress(Refused):
            act()
        return act.__name__

    def _by(self) -> str:
        return self.rng.choice(["ann", "bob"])

    def release(self) -> None:
        if len(self.runs) < MOST_RUNS:
            more = {"score": self.rng.random(), "second_reviewer": self.rng.random() < 0.3}
            some = sorted(self.rng.sample(IDS, 4))
            self.runs.append(released(self.store, self.folder, f"run-{len(self.runs)}", *some, **more))

    def more(self) -> None:
        run = self.rng.choice(self.runs)
        flags = [make_flag(one, run_id=run.run_id, rank=one) for one in sorted(self.rng.sample(IDS, 4))]
        self.store.release_more(run.run_id, iter(flags), by="cron")

    def claim(self) -> None:
        self.desk.claim("abuse", by=self._by(), for_=HOUR, n=2)

    def give_back(self) -> None:
        self.desk.return_claims("abuse", by=self._by())

    def lapse(self) -> None:
        let_claims_run_out(self.folder)

    def decide(self) -> None:
        word = self.rng.choice(list(Disposition))
        self.desk.decide([says(self.rng.choice(IDS), word, by=self._by(), correct=self.rng.random() < 0.5)])

    def settle(self) -> None:
        one = self.rng.choice(IDS)
        self.desk.decide([says(one, by="zoe"), says(one, by="ann")])

    def expire(self) -> None:
        if self.rng.random() < 0.3:
            self.desk.expire("abuse", by="cron", older_than=timedelta(0), apply=True)

    def undo(self) -> None:
        self.store.undo(self.rng.choice(self.runs).run_id, by="cid", why="a test")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_trail_and_rows_agree_whatever_was_done(store: Ledger, desk: ReviewDesk, store_folder: Path, seed: int) -> None:
    queue = Queue(store, desk, store_folder, seed)
    done = [queue.happens() for _ in range(60)]
    reader = open_reader(store_folder)
    for run in queue.runs:
        trail = Trail(reader, run.run_id)
        assert not trail.broken
        assert trail.ends_at_its_head
        assert contradictions(store_folder, run) == [], done


def test_an_event_that_tells_a_second_time_that_a_flag_stands_again_is_found(store: Ledger, store_folder: Path) -> None:
    first = released(store, store_folder, "first", 7)
    second = released(store, store_folder, "second", 7, score=0.9)
    store.undo(first.run_id, by="cid", why="a test")
    assert contradictions(store_folder, second) == []
    execute(
        store_folder,
        "INSERT INTO events SELECT number + 1, n, at, act, who, queue, account_id, run_id, state FROM events "
        "WHERE act = 'restored' AND number = (SELECT MAX(number) FROM events)",
    )
    assert contradictions(store_folder, second) != []


@pytest.mark.parametrize(("said", "agrees"), [("2 flags, 1 overtaken", True), ("2 flags, 0 overtaken", False)])
def test_a_release_that_an_earlier_version_told_of_is_held_to_its_count_alone(
    store: Ledger, store_folder: Path, said: str, agrees: bool
) -> None:
    released(store, store_folder, "first", 7)
    run = released(store, store_folder, "second", 7, 8, 9, score=0.9)
    reader = open_reader(store_folder)
    trail = Trail(reader, run.run_id)
    assert trail.releases == ["2 flags, 1 overtaken (1 evidence, 0 kept)"]
    trail.releases[:] = [said]
    assert bool([*RowsOfRun(reader.run(run.run_id), reader, trail).contradictions()]) is not agrees


def contradictions(folder: Path, run: RunHandle) -> list[str]:
    reader = open_reader(folder)
    return [*RowsOfRun(reader.run(run.run_id), reader, Trail(reader, run.run_id)).contradictions()]
