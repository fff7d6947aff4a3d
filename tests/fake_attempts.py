"""Attempts for tests: functions for executors, by names that worker processes can import; classes for runs in this process.

What a function does is told by its partition's number, through files in the store folder that the test gives; no sleeps.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batchscore.errors import AttemptFailed, PartitionError, Refused
from batchscore.plan import Partition, Reference, Rollup, Stage, Task
from batchscore.receipt import Receipt
from batchscore.turn import give_up_turn

DEADLINE_S = 60


def make_task(store: Path, number: int, *, isolated: bool = False) -> Task:
    work = Rollup(table="mails", feature_set=Reference(path="features.json", sha256="0" * 64), files=())
    partition = Partition.of(work, number=number, n_rows=1, reads={"number": number})
    return Task(run_id="r-00000000-1", store=str(store), partition=partition, isolated=isolated)


def receipt_of(task: Task) -> Receipt:
    return Receipt(
        stage=Stage.ROLLUP,
        number=task.partition.number,
        address=task.partition.address,
        attempt=uuid.uuid4().hex,
        outputs=(),
        counts={"pid": os.getpid()},
    )


def succeed(task: Task) -> Receipt:
    return receipt_of(task)


_prepared = False


def prepare_slowly() -> None:
    global _prepared  # noqa: PLW0603 (of the worker process)
    time.sleep(0.5)
    _prepared = True


def fail_to_prepare() -> None:
    raise ImportError("no such library here")


def tell_whether_prepared(task: Task) -> Receipt:
    return receipt_of(task).model_copy(update={"counts": {"prepared": int(_prepared)}})


def die_then_tell(task: Task) -> Receipt:
    """Ends the first worker that it meets; the next one tells whether it was prepared."""
    return die_the_first_time(task).model_copy(update={"counts": {"prepared": int(_prepared)}})


def fail_by_number(task: Task) -> Receipt:
    """1: final; 2: refused; 3: may be tried again; 4: a foreign exception whose text quotes a person; others succeed."""
    match task.partition.number:
        case 1:
            raise PartitionError("input_corrupt", "page 3 does not decode", where="part.parquet")
        case 2:
            raise Refused("duplicate_id", "an account stands twice", where="accounts")
        case 3:
            raise AttemptFailed("write_failed", "disk full", where="stage output scores")
        case 4:
            raise ValueError("anna@example.org")
    return receipt_of(task)


def hang_the_first_time(task: Task) -> Receipt:
    """The first attempt at number 1 never ends; later ones, and others, succeed."""
    first = Path(task.store) / "hung"
    if task.partition.number == 1 and not first.exists():
        first.touch()
        time.sleep(10 * DEADLINE_S)
    return receipt_of(task)


def hang_always_at_one(task: Task) -> Receipt:
    if task.partition.number == 1:
        time.sleep(10 * DEADLINE_S)
    return receipt_of(task)


class OnlyHere:
    """An attempt that no other process can read, as where a worker lacks a module."""

    def __call__(self, task: Task) -> Receipt:
        return receipt_of(task)

    def __reduce__(self) -> tuple[Any, ...]:
        return _only_in, (os.getpid(),)


def _only_in(pid: int) -> OnlyHere:
    if os.getpid() != pid:
        msg = "no module of that name here"
        raise ModuleNotFoundError(msg)
    return OnlyHere()


def die_the_first_time(task: Task) -> Receipt:
    """SIGKILL of the process that makes the first attempt at number 1; later attempts succeed."""
    first = Path(task.store) / "died"
    if task.partition.number == 1 and not first.exists():
        first.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return receipt_of(task)


def settle_until_the_next_begins(task: Task) -> Receipt:
    """0 gives up its turn and waits for 1, which the same thread could only begin after it; tells whether they met."""
    begun = Path(task.store) / "next begun"
    met = True
    if task.partition.number == 1:
        begun.touch()
    else:
        give_up_turn()
        met = _appears(begun)
    return receipt_of(task).model_copy(update={"counts": {"met": int(met), "pid": os.getpid()}})


def die_while_another_settles(task: Task) -> Receipt:
    """0 gives up its turn; the first attempt at 1 ends their process meanwhile. Later attempts succeed."""
    first = Path(task.store) / "died"
    if first.exists():
        return receipt_of(task)
    if task.partition.number == 1:
        first.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    give_up_turn()
    _appears(Path(task.store) / "what never comes")
    return receipt_of(task)


def hang_settling_beside_another(task: Task) -> Receipt:
    """The first attempt at 0 gives up its turn after a while and never ends; the first at 1, which began then, works on."""
    first = Path(task.store) / f"first {task.partition.number}"
    if task.partition.number > 1 or first.exists():
        return receipt_of(task)
    if task.partition.number == 1:
        first.touch()
        time.sleep(DEADLINE_S)
    time.sleep(2.0)  # of a stall limit of 3 s: what began then seems late while its next worker starts
    first.touch()
    give_up_turn()
    time.sleep(10 * DEADLINE_S)
    return receipt_of(task)


def die_settling(task: Task) -> Receipt:
    """0 ends its process, once another attempt began after it gave up its turn, three times; others succeed."""
    died = Path(task.store) / "died"
    n_deaths = len(died.read_bytes()) if died.exists() else 0
    waits = Path(task.store) / f"0 waits for death {n_deaths}"
    begun = Path(task.store) / f"another began after {n_deaths}"
    if task.partition.number:
        if waits.exists():
            begun.touch()
            time.sleep(DEADLINE_S)  # until both are ended: else all may be done before 0 has died often enough
        return receipt_of(task)
    if n_deaths < 3:
        waits.touch()
        give_up_turn()
        if _appears(begun):
            died.write_bytes(b"x" * (n_deaths + 1))
            os.kill(os.getpid(), signal.SIGKILL)
    return receipt_of(task)


def _appears(path: Path) -> bool:
    end = time.monotonic() + DEADLINE_S
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.01)
    return path.exists()


def die_always_at_one(task: Task) -> Receipt:
    if task.partition.number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return receipt_of(task)


def die_at_score_two(task: Task) -> Receipt:
    """The real attempt, but score partition 2 breaks whatever process tries it."""
    from batchscore.attempt import attempt

    if task.partition.stage is Stage.SCORE and task.partition.number == 2:
        os.kill(os.getpid(), signal.SIGSEGV)
    return attempt(task)


def wait_for_release(task: Task) -> Receipt:
    """Number 0 says that it has started and ends when the test lets it."""
    folder = Path(task.store)
    if task.partition.number == 0:
        (folder / f"started-{uuid.uuid4().hex}").touch()
        deadline = time.monotonic() + DEADLINE_S
        while not (folder / "go").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
    return receipt_of(task)


def score_but_hang_the_first_time(task: Task) -> Receipt:
    """The real attempt, but the first at score partition 2 never ends."""
    from batchscore.attempt import attempt

    first = Path(task.store) / "hung"
    if task.partition.stage is Stage.SCORE and task.partition.number == 2 and not first.exists():
        first.touch()
        time.sleep(10 * DEADLINE_S)
    return attempt(task)


def score_when_told(task: Task) -> Receipt:
    """The real attempt, but score partitions from the third on wait while the store's folder holds ``hold``."""
    from batchscore.attempt import attempt

    deadline = time.monotonic() + DEADLINE_S
    while task.partition.stage is Stage.SCORE and task.partition.number >= 2 and (Path(task.store) / "hold").exists():
        time.sleep(0.02)
        assert time.monotonic() < deadline, "nobody let it go on"
    return attempt(task)


class Noted:
    """The attempt that stands in `batchscore.attempt` when this is made; ``tried`` holds what it was given, in order."""

    def __init__(self) -> None:
        import batchscore.attempt

        self._attempt: Callable[[Task], Receipt] = batchscore.attempt.attempt
        self.tried: list[tuple[Stage, int]] = []

    def __call__(self, task: Task) -> Receipt:
        self.tried.append((task.partition.stage, task.partition.number))
        return self._attempt(task)

    @property
    def stages(self) -> list[Stage]:
        return [stage for stage, _ in self.tried]

    def numbers(self, stage: Stage) -> list[int]:
        return [number for tried, number in self.tried if tried is stage]


class AtTheNth(Noted):
    """The same, but ``then`` is called once, before the n-th attempt at ``stage`` (at any, without one); n counts from 1."""

    def __init__(self, n: int, then: Callable[[], object], stage: Stage | None = None) -> None:
        super().__init__()
        self._n_left, self._then, self._stage = n, then, stage

    def __call__(self, task: Task) -> Receipt:
        if self._stage in {None, task.partition.stage}:
            self._n_left -= 1
            if self._n_left == 0:
                self._then()
        return super().__call__(task)


class Poisoned(Noted):
    """The same, but every attempt at one of ``broken`` fails for good: at a partition, or at a whole stage."""

    def __init__(self, *broken: Stage | tuple[Stage, int]) -> None:
        super().__init__()
        self._broken = broken

    def __call__(self, task: Task) -> Receipt:
        if {task.partition.stage, (task.partition.stage, task.partition.number)} & set(self._broken):
            self.tried.append((task.partition.stage, task.partition.number))
            raise PartitionError("input_corrupt", "a page does not decode", where="part.parquet")
        return super().__call__(task)
