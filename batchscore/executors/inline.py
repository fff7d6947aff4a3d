"""The simplest executor: attempts run here, one after the other. The reference that every other executor must equal.

They run in a thread of their own, so that the driver hears of stops and pauses meanwhile, and does not hang with an attempt that
never ends. A thread cannot be ended: one that is given up is left behind, and what it may still write is referred to by nobody.
What was given up twice runs in a child process, which can be ended.
"""

from __future__ import annotations

import contextvars
import faulthandler
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from batchscore.errors import type_and_place
from batchscore.executors.guarded import Attempt, attempted
from batchscore.executors.isolated import attempted_alone
from batchscore.plan import Task
from batchscore.ports import Worklist
from batchscore.receipt import Failed, Outcome, Stalled, Suspected

STALL_S: Final = 600.0  # as on Dask
HEARTBEAT_S: Final = 1.0
MAX_LINES: Final = 60
Work = Callable[[], Outcome]


class InlineExecutor:
    """Runs attempts in the driver's own process."""

    def __init__(self, attempt: Attempt, *, stall_s: float = STALL_S) -> None:
        """``stall_s``: an attempt that takes longer is given up."""
        self._attempt = attempt
        self._stall_s = stall_s
        self._hand: _Hand | None = None

    def describe(self) -> str:
        """One line for people."""
        return "inline, in this process"

    def waiting(self) -> str:
        """Nothing is ever waited for."""
        return ""

    def outcomes(self, worklist: Worklist) -> Iterator[Sequence[Outcome]]:
        """Each task's outcome, in the order they are handed out."""
        try:
            while (task := worklist.next()) is not None:
                yield from self._attempted(task)
                yield []  # the driver commits before the next attempt begins
        finally:
            if self._hand is not None:
                self._hand.dismiss()
                self._hand = None

    def _attempted(self, task: Task) -> Iterator[Sequence[Outcome]]:
        self._hand = self._hand or _Hand()
        began = time.monotonic()
        self._hand.begin(lambda: self._alone(task) if task.isolated else attempted(self._attempt, task))
        while True:
            left_s = self._stall_s - (time.monotonic() - began)
            outcome = self._hand.outcome(min(HEARTBEAT_S, max(0.0, left_s)))
            if outcome is not None:
                yield [outcome]
                return
            if left_s <= 0:
                yield self._given_up(task)
                return
            yield []

    def _alone(self, task: Task) -> Outcome:
        try:
            return attempted_alone(self._attempt, task, limit_s=self._stall_s * 0.9)
        except Exception as error:  # noqa: BLE001 (an attempt that cannot be sent to a child)
            return Failed(task=task, reason="attempt_failed", message=type_and_place(error), final=False)

    def _given_up(self, task: Task) -> Sequence[Outcome]:
        assert self._hand is not None
        self._hand.dismiss()
        self._hand = None
        told = Stalled(
            tasks=(task,),
            seconds=self._stall_s,
            found=f"an attempt has not ended within the stall limit of {self._stall_s:,.0f} s",
            done="its thread is left behind, and it is tried again",
            evidence=_stacks(),
        )
        return [told, Suspected(task=task, running=False, reason="stalled")]


class _Hand:
    """A thread that does one thing after the other: OpenMP keeps a team for each thread, and a new one would cost a new team."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="batchscore-attempt", daemon=True).start()

    def begin(self, work: Work) -> None:
        """Do it; log lines are as the caller's."""
        context = contextvars.copy_context()
        self._asked.put(lambda: context.run(work))

    def outcome(self, within_s: float) -> Outcome | None:
        """What came of it; None: not in that time. What ends a process is raised here."""
        try:
            done = self._done.get(timeout=within_s)
        except queue.Empty:
            return None
        if isinstance(done, BaseException):
            raise done
        return done

    def dismiss(self) -> None:
        """End after what is being done."""
        self._asked.put(None)

    def _work(self) -> None:
        while (work := self._asked.get()) is not None:
            try:
                self._done.put(work())
            except BaseException as error:  # noqa: BLE001 (it is the caller's, as if there were no thread)
                self._done.put(error)


def _stacks() -> tuple[str, ...]:
    """Where every thread of this process is: files, lines and functions, and no value."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return tuple(line.rstrip() for line in file)[:MAX_LINES]
