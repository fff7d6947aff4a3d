"""What an outcome means: receipts are committed, a failure counts, a lost worker accuses, and who gave way comes first again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from batchscore.dispatch.stories import write_story
from batchscore.dispatch.worklist import HandOut, apart
from batchscore.errors import Interrupted, Paused, Problem, Refused
from batchscore.events import PartitionAlerted, PartitionCommitted, PartitionFailed, StallFound
from batchscore.plan import Partition, Stage, Task
from batchscore.ports import Observer, RunHandle, Store
from batchscore.receipt import Failed, Finished, Outcome, Postponed, Receipt, Stalled, Suspected

MAX_FAILURES: Final = 3  # of one partition; the third quarantines it
MAX_WRITES_FAILED: Final = 3  # of one partition, by one driver: its disk is not going to mend itself
MAX_SUSPICIONS: Final = 2  # after so many lost workers a partition runs alone in a child process


class Hearing:
    """Hears the outcomes of one run's attempts."""

    def __init__(self, handle: RunHandle, store: Store, observer: Observer, folder: Path) -> None:
        """``folder``: the store's, where the story of a stall is kept."""
        self._folder = folder
        self._handle = handle
        self._store = store
        self._observer = observer
        self._writes_failed: Counter[tuple[Stage, int]] = Counter()

    def commit(self, finished: Sequence[Finished]) -> None:
        """Let the receipts stand in the ledger, and tell of those that are new."""
        if not finished:
            return
        came = {stage: [pair for outcome in finished for pair in _of_stage(outcome, stage)] for stage in Stage}
        for pairs in filter(None, came.values()):  # a transaction for each stage: its numbers say which are new
            new = set(self._store.commit(self._handle, [receipt for _, receipt in pairs]))
            for partition, receipt in pairs:
                if partition.number in new:
                    self._tell_committed(partition, receipt)

    def hear(self, outcome: Outcome, worklist: HandOut) -> None:
        """Of a receipt, only that it is no longer under way; of anything else, what follows for the partition.

        Of partitions that were done in one pass nobody knows whose failure it was: it counts once they are tried apart.

        Raises:
            Paused: a live source was above its critical load.
            Refused: the attempt found what a plan could not see.
            Interrupted: ``write_failed``: a disk is full or fails, again and again.
        """
        if isinstance(outcome, Stalled):
            self._tell_stall(outcome)
            return
        if not (isinstance(outcome, Suspected) and outcome.running):
            worklist.came_home(outcome.task)
        if isinstance(outcome, Postponed):
            if outcome.reason == "source_overloaded":
                raise Paused(outcome.reason, outcome.message)
            worklist.put_first(outcome.task)
        elif isinstance(outcome, Suspected):
            self._suspect(outcome, worklist)
        elif isinstance(outcome, Failed) and outcome.task.beside:
            for task in apart(outcome.task):
                worklist.put(task)
            self._tell_failure(outcome.task, outcome.reason, quarantined=False)
        elif isinstance(outcome, Failed):
            self._count(outcome, worklist)

    def _count(self, failed: Failed, worklist: HandOut) -> None:
        if failed.stops_run:
            found = Problem(where=f"{failed.task.partition.stage} {failed.task.partition.number}", what=failed.message)
            where = f"run {self._handle.run_id}"
            raise Refused(failed.reason, "found while the run was under way", where=where, problems=(found,))
        if failed.reason == "write_failed":
            self._write_failed(failed, worklist)
            return
        limit = 1 if failed.final else MAX_FAILURES
        quarantined = self._store.count_failure(self._handle, failed.task, failed.reason, failed.message, quarantine_at=limit)
        if not quarantined:
            worklist.put(failed.task)
        self._tell_failure(failed.task, failed.reason, quarantined=quarantined)

    def _write_failed(self, failed: Failed, worklist: HandOut) -> None:
        """A full disk is no fault of the partition that met it: it is tried again, and never set aside for it."""
        partition = failed.task.partition
        self._store.count_failure(self._handle, failed.task, failed.reason, failed.message, quarantine_at=None)
        self._tell_failure(failed.task, failed.reason, quarantined=False)
        self._writes_failed[partition.stage, partition.number] += 1
        if self._writes_failed[partition.stage, partition.number] >= MAX_WRITES_FAILED:
            raise Interrupted(
                failed.reason,
                f"{partition.stage} {partition.number} could not be written {MAX_WRITES_FAILED} times: a disk is full or fails",
                remedy="free space or mend the disk",
            )
        worklist.put(failed.task)

    def _suspect(self, outcome: Suspected, worklist: HandOut) -> None:
        suspicions = self._store.count_suspicion(self._handle, outcome.task, outcome.reason)
        alone = outcome.task.isolated or suspicions >= MAX_SUSPICIONS
        if not outcome.running or (alone and not outcome.task.isolated):
            first, *others = apart(outcome.task) if alone else (outcome.task,)
            for task in others:
                worklist.put(task)
            worklist.put_first(first.model_copy(update={"isolated": alone}))
        self._tell_failure(outcome.task, outcome.reason, quarantined=False)

    def _tell_stall(self, stalled: Stalled) -> None:
        story = write_story(self._folder, self._handle.run_id, stalled)
        self._observer(
            StallFound(run_id=self._handle.run_id, seconds=stalled.seconds, found=stalled.found, done=stalled.done, story=story)
        )

    def _tell_committed(self, partition: Partition, receipt: Receipt) -> None:
        run_id, stage, number = self._handle.run_id, partition.stage, partition.number
        for alert in receipt.alerts:
            self._observer(PartitionAlerted(run_id=run_id, stage=stage, number=number, alert=alert))
        seconds = sum(receipt.seconds.values())
        self._observer(PartitionCommitted(run_id=run_id, stage=stage, number=number, n_rows=partition.n_rows, seconds=seconds))

    def _tell_failure(self, task: Task, reason: str, *, quarantined: bool) -> None:
        run_id, partition = self._handle.run_id, task.partition
        self._observer(
            PartitionFailed(run_id=run_id, stage=partition.stage, number=partition.number, reason=reason, quarantined=quarantined)
        )


def _of_stage(outcome: Finished, stage: Stage) -> Iterator[tuple[Partition, Receipt]]:
    """The partitions of the stage among those that were done, with their receipts."""
    partitions = (outcome.task.partition, *outcome.task.beside)
    pairs = zip(partitions, outcome.receipt.apart(), strict=True)
    return (pair for pair in pairs if pair[0].stage is stage)
