"""The simplest executor: attempts run here, one after the other. The reference that every other executor must equal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from batchscore.executors.guarded import Attempt, attempted
from batchscore.ports import Worklist
from batchscore.receipt import Outcome


class InlineExecutor:
    """Runs attempts in the driver's own process."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def describe(self) -> str:
        """One line for people."""
        return "inline, in this process"

    def waiting(self) -> str:
        """Nothing is ever waited for."""
        return ""

    def outcomes(self, worklist: Worklist) -> Iterator[Sequence[Outcome]]:
        """Each task's outcome, in the order they are handed out."""
        while (task := worklist.next()) is not None:
            yield [attempted(self._attempt, task)]
            yield []  # the driver does not come to its turn again before the next attempt is over
