"""A cell of the matrix: one failpoint, one way to fail, one database; and a chain: all points in turn, in one run.

A cell is equal when the run that failed there, taken up again, ends as one that was left alone: digest of scores and flags,
whatever `verify` can find, and nothing that a reviewer saw too early.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from batchscore.failpoints import Point
from batchscore.flag import FlagState
from batchscore.operations.verify import verify_run
from batchscore.store import open_reader
from tests.chaos.processes import Child
from tests.chaos.story import Verb, tell
from tests.chaos.watcher import Watcher
from tests.run_digest import run_digest
from tests.small_world import SmallWorld

Action = Literal["kill", "raise", "stop"]
ACTIONS: Final[tuple[Action, ...]] = ("kill", "raise", "stop")
LEASE_S: Final = 0.1
# Points that are come by with a transaction open: on SQLite nobody else can write before it is over.
INSIDE: Final = frozenset(
    {Point.RECEIPTS_ACCEPTING, Point.FLAGS_INSERTING, Point.RELEASING, Point.AUDIT_KEY_MADE, Point.AUDIT_APPENDING,
     Point.UNDO_WITHDRAWING, Point.TRANSACTION_DONE}
)  # fmt: skip
APPROVING: Final = frozenset({Point.RUN_HELD, Point.AUDIT_KEY_MADE, Point.AUDIT_APPENDING})  # the trail's first entry
ON_WORKERS: Final = frozenset(point for point in Point if point.startswith(("attempt", "file")))
MakeStore = Callable[[str], Path]  # a name → the folder of a new store, on the database under test


def on_a_worker(point: Point) -> int:
    """The how-manieth coming by is the first in an attempt: the driver itself writes one file before (the feature set)."""
    return 2 if point.startswith("file") and point is not Point.FILE_GROWING else 1


def verb_of(point: Point) -> Verb:
    """In which part of the story a point is first come by."""
    if point.startswith("undo"):
        return "undo"
    return "clean" if point.startswith("clean") else "run"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Where cells are played: a world, stores in it, and what an undisturbed run comes to."""

    world: SmallWorld
    make_store: MakeStore
    undisturbed: str

    def child(self, verb: Verb, store: Path, armed: str = "", lease_s: float = LEASE_S) -> Child:
        """A process that tells that part of the story on that store."""
        spec = self.world.folder / f"{store.name}.yaml"
        if not spec.exists():
            self.world.spec(store=store.name, **self._database(store))
            self.world.spec_path.rename(spec)
        named = {name: value for name, value in os.environ.items() if name.startswith("BATCHSCORE_URL_")}
        return Child(tell, verb, str(spec), armed, lease_s, environment=named)

    def whole(self, verb: Verb, store: Path) -> None:
        """That part of the story, undisturbed."""
        with self.child(verb, store) as child:
            assert child.wait() == 0

    def check(self, verb: Verb, store: Path) -> None:
        """Whether all is as if nothing had happened."""
        reader = open_reader(store)
        (row,) = reader.runs()
        assert row.state == "finished"
        if verb == "run":
            assert run_digest(store, row.run_id) == self.undisturbed
        elif verb == "undo":
            assert set(reader.flag_states(row.run_id)) <= {FlagState.WITHDRAWN, FlagState.OVERTAKEN}
        found = verify_run(row, reader, store)
        assert found.true, [check.untrue for check in found.checks]

    @staticmethod
    def _database(store: Path) -> dict[str, str]:
        return {"database": "review"} if (store / "database.name").exists() else {}


def play(stage: Stage, point: Point, action: Action, *, blocks: bool, at: int = 1) -> None:
    """One cell. ``blocks``: whether a process that stands inside a transaction keeps every other from writing (SQLite)."""
    verb = verb_of(point)
    store = stage.make_store(f"{point}-{action}-{at}".replace(" ", "-"))
    if verb != "run":
        stage.whole("run", store)
    if verb == "clean":
        _leave_rubbish(store)
    with Watcher(store), ExitStack() as zombies:
        first = zombies.enter_context(stage.child(verb, store, f"{point}={action}@{at}"))
        _fails(first, point, action)
        if action == "stop" and blocks and point in INSIDE:
            with stage.child(verb, store) as second:  # the first has the lock: who comes meanwhile waits for it
                time.sleep(LEASE_S * 3)
                first.wake()
                assert {first.wait(), second.wait()} <= {0, 2, 5}, "one of them goes on; the other is told whose the run is"
            stage.whole(verb, store)
        elif action == "stop":
            time.sleep(LEASE_S * 1.5)
            stage.whole(verb, store)
            first.wake()
            assert (code := first.wait()) in _late(verb, point), f"{code}: who comes back late changes nothing, and says so"
        else:
            stage.whole(verb, store)
    stage.check(verb, store)


def chain(stage: Stage, name: str, failures: Sequence[tuple[Point, Action]]) -> int:
    """One run that fails at one point after the other, each time in a new process; how many did. Each part ends equal."""
    n = 0
    store = stage.make_store(name)
    with Watcher(store) as watcher, ExitStack() as zombies:
        asleep: list[tuple[Point, Child]] = []
        for verb in ("run", "undo", "clean"):
            if verb == "clean":
                _leave_rubbish(store)
            for point, action in failures:
                if verb_of(point) == verb:
                    child = zombies.enter_context(stage.child(verb, store, f"{point}={action}"))
                    _fails(child, point, action)
                    n += 1
                    if action == "stop":
                        asleep.append((point, child))
                        time.sleep(LEASE_S * 1.5)
            stage.whole(verb, store)
            for point, zombie in asleep:
                zombie.wake()
                assert zombie.wait() in _late(verb, point), f"{point}: who comes back late changes nothing, and says so"
            asleep.clear()
            stage.check(verb, store)
    assert watcher.n_looks > 0
    return n


def _fails(child: Child, point: Point, action: Action) -> None:
    """Wait until it has failed there. On a worker an exception is heard by the driver, which goes on."""
    if action == "stop":
        assert child.wait_until_stopped(), f"{point} was not come by"
        return
    code = child.wait()
    expected = {"kill": -signal.SIGKILL, "raise": 0 if point in ON_WORKERS else 1}[action]
    assert code == expected, f"{point}={action}: {code}"


def _late(verb: Verb, point: Point) -> set[int]:
    """How a process may end that slept while another did its work: fenced; or done, where nothing was left to do."""
    if point in APPROVING and verb == "run":
        return {2}  # what it goes on to approve is not held any more
    return {0, 5} if verb == "run" else {0}


def _leave_rubbish(store: Path) -> None:
    for number in range(3):
        path = store / "score" / "0" / f"given-up-{number}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (0, 0))
