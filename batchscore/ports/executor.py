"""The port of executors: where attempts run. Implemented by `executors`: inline, in a local cluster, on a running scheduler."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from batchscore.plan import Task
from batchscore.receipt import Outcome


class Worklist(Protocol):
    """What there is to do, handed out one task at a time."""

    def next(self) -> Task | None:
        """The next task, or None: nothing to hand out now (all done, in flight, or stopping)."""


class Executor(Protocol):
    """Runs attempts somewhere. Knows nothing of the ledger: it reports outcomes, the pipeline decides what they mean."""

    def outcomes(self, worklist: Worklist) -> Iterator[Sequence[Outcome]]:
        """Outcomes in batches as they come, until nothing is in flight and the worklist hands out nothing.

        A batch is empty when nothing happened for about a second, or when the driver waits for the next attempt itself: its
        chance to commit what came home and to look for a stop. A task for a partition that is in flight already takes the
        place of the older one.
        """

    def waiting(self) -> str:
        """Why nothing can go on at the moment; empty when something can."""

    def describe(self) -> str:
        """One line for people: ``inline``, ``dask tcp://127.0.0.1:… 2 workers``."""
