"""Attempts on a Dask cluster, through futures: unique keys, a bounded window, ``retries=0``.

Dask runs a task at least once, so nothing here relies on once: an attempt announces its start on an event topic, and a
second start of the same key is how we learn that the worker of the first was lost, whatever the scheduler's settings.
Knows nothing of the ledger; never closes a client that it was given.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, Final

from distributed import Client, Future, get_worker
from distributed.client import FutureCancelledError
from distributed.scheduler import KilledWorker
from distributed.utils import sync

from batchscore.errors import Interrupted
from batchscore.executors.guarded import Attempt, attempted
from batchscore.executors.isolated import attempted_alone
from batchscore.executors.preparing import LONGEST_S, prepare_driver
from batchscore.plan import Stage, Task
from batchscore.ports import Worklist
from batchscore.receipt import Failed, Outcome, Suspected
from batchscore.settings import library_versions

HEARTBEAT_S: Final = 1.0
TASKS_PER_WORKER: Final = 3  # one running, two waiting: no worker idles for a round trip to the driver
Place = tuple[Stage, int]


def _on_worker(attempt: Attempt, task: Task, topic: str, versions: tuple[tuple[str, str], ...]) -> Outcome:
    """What a worker runs. A worker that joined late is checked here, before it can write a differing bit."""
    worker = get_worker()
    # Not worker.log_event: that only queues the message, and an attempt that kills its process at once would take it along.
    sync(worker.loop, worker.scheduler.log_event, topic=topic, msg={"key": worker.get_current_task(), "pid": os.getpid()})
    if (mine := library_versions()) != versions:
        skew = ", ".join(f"{name} {mine_v}" for name, mine_v in mine if (name, mine_v) not in versions)
        return Failed(task=task, reason="version_skew", message=f"a worker runs {skew}", final=True, stops_run=True)
    return attempted_alone(attempt, task) if task.isolated else attempted(attempt, task)


class _Flight:
    """One submitted task: its future, and how many starts of it were announced."""

    def __init__(self, task: Task, future: Future[Outcome]) -> None:
        self.task = task
        self.future = future
        self.starts = 0


class DaskExecutor:
    """Runs attempts through a `distributed.Client`."""

    def __init__(self, client: Client, attempt: Attempt, prepared: threading.Event | None = None) -> None:
        self._client = client
        self._prepared = prepared  # set once the workers are ready for their first attempt
        self._attempt = attempt
        self._topic = f"batchscore-{uuid.uuid4().hex}"
        self._heard: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()  # ("start" or "done", key)
        self._flights: dict[str, _Flight] = {}
        self._keys: dict[Place, str] = {}
        self._n_threads = 0
        self._sized_at = float("-inf")

    def with_attempt(self, attempt: Attempt) -> DaskExecutor:
        """Another executor on the same client."""
        return DaskExecutor(self._client, attempt, self._prepared)

    def describe(self) -> str:
        """One line for people: the scheduler's address and the number of workers."""
        return f"dask {self._client.scheduler_info(n_workers=0)['address']}, {len(self._workers())} workers"

    def waiting(self) -> str:
        """Whether there is anybody to work."""
        return (
            ""
            if self._n_threads or not self._flights
            else "the scheduler has no workers; start some: dask worker ADDRESS --nthreads 1"
        )

    def outcomes(self, worklist: Worklist) -> Iterator[Sequence[Outcome]]:
        """Outcomes as they come; the window follows the number of workers as it is now.

        Raises:
            Interrupted: ``scheduler_unreachable`` when the connection to the scheduler is lost. What is committed stays.
        """
        self._client.subscribe_topic(self._topic, self._hear_start)
        try:
            yield from self._until_prepared()
            while True:
                self._fill(worklist)
                if not self._flights:
                    return
                prepare_driver()  # while the workers are at it
                yield self._collect()
        finally:
            with contextlib.suppress(Exception):  # a lost scheduler must not hide why we leave
                self._client.cancel([flight.future for flight in self._flights.values()], force=True)
                self._client.unsubscribe_topic(self._topic)
            self._flights.clear()
            self._keys.clear()

    def _until_prepared(self) -> Iterator[Sequence[Outcome]]:
        """Nothing, once a heartbeat, until the workers are ready for their first attempt or have had their time."""
        late = time.monotonic() + LONGEST_S
        while self._prepared is not None and not self._prepared.wait(HEARTBEAT_S) and time.monotonic() < late:
            yield []

    def _workers(self) -> dict[str, Any]:
        workers: dict[str, Any] = self._client.scheduler_info(n_workers=-1)["workers"]
        return workers

    def _fill(self, worklist: Worklist) -> None:
        while len(self._flights) < self._window() and (task := worklist.next()) is not None:
            self._submit(task)

    def _window(self) -> int:
        """How many tasks may be out; the number of workers is asked for once a heartbeat, not once a task."""
        now = time.monotonic()
        if now - self._sized_at > HEARTBEAT_S and self._connected():
            self._n_threads, self._sized_at = sum(self._client.nthreads().values()), now
        return TASKS_PER_WORKER * max(1, self._n_threads)

    def _submit(self, task: Task) -> None:
        partition = task.partition
        place = (partition.stage, partition.number)
        if older := self._keys.get(place):
            self._drop(older, cancel=True)
        # Dask groups tasks by what stands before the uuid: the stage is the group, the partition can be read in the key.
        key = f"{partition.stage}-{partition.number:06d}-{uuid.uuid4()}"
        future = self._client.submit(
            _on_worker, self._attempt, task, self._topic, library_versions(), key=key, pure=False, retries=0
        )
        self._flights[key] = _Flight(task, future)
        self._keys[place] = key
        future.add_done_callback(lambda done: self._heard.put(("done", str(done.key))))

    def _drop(self, key: str, *, cancel: bool = False) -> None:
        flight = self._flights.pop(key)
        self._keys.pop((flight.task.partition.stage, flight.task.partition.number), None)
        if cancel:
            self._client.cancel([flight.future], force=True)
        flight.future.release()

    def _hear_start(self, event: tuple[float, Any]) -> None:
        self._heard.put(("start", str(event[1]["key"])))

    def _collect(self) -> list[Outcome]:
        """Everything heard within a heartbeat, as soon as there is something."""
        outcomes: list[Outcome] = []
        with contextlib.suppress(queue.Empty):
            outcomes += self._understand(*self._heard.get(timeout=HEARTBEAT_S))
            while True:
                outcomes += self._understand(*self._heard.get_nowait())
        if not self._connected():
            raise Interrupted(
                "scheduler_unreachable",
                "the connection to the scheduler is lost; what is committed stays",
                remedy="start the scheduler",
            )
        return outcomes

    def _connected(self) -> bool:
        return self._client.status == "running"

    def _understand(self, what: str, key: str) -> list[Outcome]:
        flight = self._flights.get(key)
        if flight is None:
            return []  # a zombie of a task that was given up
        if what == "start":
            flight.starts += 1
            return [Suspected(task=flight.task, running=True)] if flight.starts > 1 else []
        outcome = self._outcome(flight)
        self._drop(key)
        return [outcome]

    def _outcome(self, flight: _Flight) -> Outcome:
        try:
            outcome: Outcome = flight.future.result(timeout=HEARTBEAT_S * 30)
        except (KilledWorker, FutureCancelledError):
            return Suspected(task=flight.task, running=False)
        except Exception as error:  # noqa: BLE001 (Dask's own: a task that cannot be sent or a result that cannot be read)
            return Failed(task=flight.task, reason="attempt_failed", message=f"{type(error).__name__} in Dask", final=False)
        return outcome
