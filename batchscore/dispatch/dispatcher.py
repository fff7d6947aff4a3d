"""The loop over a stage's attempts: hand out, hear, commit; until all are done, or somebody wants it to end."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Final

from batchscore.dispatch.hearing import Hearing
from batchscore.dispatch.waits import Waits
from batchscore.dispatch.worklist import HandOut
from batchscore.errors import Interrupted
from batchscore.events import Stopping
from batchscore.plan import Task
from batchscore.ports import Executor, Observer, RunHandle, Store
from batchscore.receipt import Finished
from batchscore.sources.brake import NO_BRAKE, Brake

DRAIN_S: Final = 15.0  # whoever asks a driver to stop kills it after 30
COMMIT_EVERY_S: Final = 0.5  # a commit waits for the disk: receipts that come faster share one
LATEST_COMMIT_S: Final = 2.0  # of receipts that a killed driver may lose, where commits are slow
COMMIT_SHARE: Final = 0.04  # of a busy driver's time, at most, unless that would be too late


def pause_after(commit_s: float) -> float:
    """Seconds in which receipts gather after a commit that took ``commit_s``: a slow disk or server is asked less often."""
    return min(max(COMMIT_EVERY_S, commit_s / COMMIT_SHARE), LATEST_COMMIT_S)


class Dispatcher:
    """Brings one run's tasks to an executor, and what comes of them into the ledger."""

    def __init__(
        self, handle: RunHandle, executor: Executor, store: Store, observer: Observer, waits: Waits, folder: Path
    ) -> None:
        """``folder``: the store's."""
        self._handle = handle
        self._executor = executor
        self._store = store
        self._observer = observer
        self._hearing = Hearing(handle, store, observer, folder)
        self._waits = waits

    def attempt_all(self, tasks: Sequence[Task], brake: Brake = NO_BRAKE) -> None:
        """Return when each task's partition is committed, or set aside.

        Raises:
            Paused: a wait lasted longer than it may, or a live source was above its critical load.
            Cancelled: a person asked for it.
            Interrupted: a stop was asked for, or the scheduler was lost; what is committed stays.
            Refused: an attempt found what a plan could not see.
            Fenced: a newer driver took the run.
        """
        worklist = HandOut(tasks, lambda: self._waits.may_hand_out(brake), brake.most_reads)
        while worklist:
            self._waits.until_free(brake)
            self._attempt_some(worklist, brake)
        self._waits.until_free()
        if brake.worst_lag_s is not None:
            self._store.note_held_back(self._handle, 0.0, brake.worst_lag_s)

    def _attempt_some(self, worklist: HandOut, brake: Brake) -> None:
        """Until nothing is under way and nothing more is handed out: all is done, or the brake holds."""
        stopped_at: float | None = None
        waiting: list[Finished] = []
        next_at = time.monotonic() + COMMIT_EVERY_S
        batches = self._executor.outcomes(worklist)
        try:
            for outcomes in batches:
                self._waits.while_under_way(brake, self._executor.waiting())
                waiting += [outcome for outcome in outcomes if isinstance(outcome, Finished)]
                # Idle: nothing more comes soon. And a failure may be of a partition whose receipt waits: the receipt was first.
                at_once = not outcomes or not all(isinstance(outcome, Finished) for outcome in outcomes)
                if waiting and (at_once or time.monotonic() >= next_at):
                    begun = time.monotonic()
                    self._hearing.commit(waiting)
                    waiting, ended = [], time.monotonic()
                    next_at = ended + pause_after(ended - begun)
                for outcome in outcomes:
                    self._hearing.hear(outcome, worklist)
                if self._waits.stopping:
                    stopped_at = self._drained_since(stopped_at)
        finally:
            self._hearing.commit(waiting)  # what came home counts, whatever ended the stage
            if isinstance(batches, Generator):
                batches.close()  # what is still under way is given up before the run is given back
        self._waits.stop_if_asked()

    def _drained_since(self, stopped_at: float | None) -> float:
        """When the stop was first seen; it is told then.

        Raises:
            Interrupted: what was in flight has had `DRAIN_S` to end.
        """
        now = time.monotonic()
        if stopped_at is None:
            self._observer(Stopping(run_id=self._handle.run_id))
            return now
        if now - stopped_at > DRAIN_S:
            what = f"stopped on request; what had not ended {DRAIN_S:.0f} s later is left, everything committed is kept"
            raise Interrupted("interrupted", what)
        return stopped_at
