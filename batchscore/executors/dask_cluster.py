"""Attempts on a Dask cluster, through futures: unique keys, a bounded window, ``retries=0``.

Dask runs a task at least once, so nothing here relies on once: an attempt announces its start on an event topic, and a
second start of the same key is how we learn that the worker of the first was lost, whatever the scheduler's settings. Whoever
had done his work there and only settled his files, while another attempt had begun, is not suspected of it, a few times.
Nor on an answer: an attempt that takes longer than the stall limit is given up, and so is a cluster of ours that says nothing.
Knows nothing of the ledger; never closes a client that it was given.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from distributed import Client, Future, get_worker, secede
from distributed.client import ClosedClientError, FutureCancelledError
from distributed.protocol.pickle import dumps
from distributed.scheduler import KilledWorker
from distributed.utils import sync

from batchscore.errors import Interrupted
from batchscore.executors.guarded import Attempt, attempted
from batchscore.executors.isolated import attempted_alone
from batchscore.executors.preparing import LONGEST_S, Preparation, prepare_driver
from batchscore.executors.stalls import STALL_S, answers, ask_scheduler, evidence
from batchscore.executors.versions import refuse_version_skew
from batchscore.plan import Stage, Task
from batchscore.ports import Worklist
from batchscore.receipt import Failed, Outcome, Postponed, Stalled, Suspected
from batchscore.settings import library_versions
from batchscore.turn import turn

HEARTBEAT_S: Final = 1.0
RESULT_S: Final = 5.0  # to fetch a receipt of 2 KB; the driver hears nothing else meanwhile
TASKS_PER_WORKER: Final = 3  # one running, two waiting (or one, beside one that settles): no worker idles for a round trip
MOST_SETTLING: Final = 2  # for each of a worker's threads: a disk that hangs must not collect attempts without end
MOST_FORGIVEN: Final = 3  # of a partition: another that kills takes two workers along before it runs alone
CONNECTION_LOST: Final = "scheduler-connection-lost"  # why Dask cancels all futures, whether or not it connects again
Place = tuple[Stage, int]


def _on_worker(work: bytes, topic: str, versions: tuple[tuple[str, str], ...], stall_s: float) -> Outcome | str:
    """What a worker runs; a text is why it could not even read its task.

    A worker that joined late is checked here, before it can write a differing bit. ``work`` (attempt, task) is unpickled
    after that, and here: where Dask cannot, it tells nobody, and the task would wait for ever.
    """
    worker, key = get_worker(), str(get_worker().get_current_task())
    # Not worker.log_event: that only queues the message, and an attempt that kills its process at once would take it along.
    started = {"key": key, "worker": worker.address, "pid": os.getpid(), "settled": list(_gave_up)}
    sync(worker.loop, worker.scheduler.log_event, topic=topic, msg=started)
    if (mine := library_versions()) != versions:
        return ", ".join(f"{name} {mine_v}" for name, mine_v in mine if (name, mine_v) not in versions)
    attempt, task = pickle.loads(work)  # noqa: S301 (pickled by our driver, and sent over the connection that every task takes)
    if task.isolated:
        return attempted_alone(attempt, task, limit_s=stall_s * 0.9)
    with turn(lambda: begin_the_next(key)):
        try:
            return attempted(attempt, task)
        finally:
            _settling.discard(key)


_settling: Final[set[str]] = set()  # of this worker: attempts that gave up their turn, and have not ended
_gave_up: Final[deque[str]] = deque(maxlen=4)  # the last that did; their results may not be home yet


def begin_the_next(key: str) -> None:
    """Let the worker begin its next task beside this one, unless its disk keeps too many already: then this one waits in turn.

    A worker that is closing has no next task, and that is no failure.
    """
    if len(_settling) < MOST_SETTLING * get_worker().state.nthreads:
        _settling.add(key)
        _gave_up.append(key)
        with contextlib.suppress(Exception):
            secede()


class _Process(NamedTuple):
    """Of a worker. A pid alone would not do: in containers they are all small, and alike."""

    worker: str
    pid: int


_NOWHERE: Final = _Process("", 0)


@dataclass(slots=True)
class _Flight:
    """One submitted task: its future, how many starts of it were announced, and of the last when and by which process.

    ``settling``: since then another attempt has begun in that process, so this one had given up its turn. ``excused``: we have
    ended that process, for another attempt; the stall limit counts from then, since a worker has to come first.
    """

    task: Task
    future: Future[Outcome | str]
    starts: int = 0
    started_at: float = 0.0
    process: _Process = _NOWHERE
    settling: bool = False
    excused: bool = False


class _Heard(NamedTuple):
    """Of a task: that it has ``start``-ed (where), that it had given up its turn there (``settled``), or that it is ``done``."""

    what: Literal["start", "settled", "done"]
    key: str
    process: _Process = _NOWHERE


class DaskExecutor:
    """Runs attempts through a `distributed.Client`."""

    def __init__(
        self,
        client: Client,
        attempt: Attempt,
        *,
        preparation: Preparation | None = None,
        stall_s: float = STALL_S,
        replace: Callable[[], Client] | None = None,
    ) -> None:
        """``preparation``: is waited for before the first attempt. ``replace``: of a cluster that is ours."""
        self._client = client
        self._preparation = preparation
        self._attempt = attempt
        self._stall_s = stall_s
        self._replace = replace
        self._topic = f"batchscore-{uuid.uuid4().hex}"
        self._heard: queue.SimpleQueue[_Heard] = queue.SimpleQueue()
        self._heard_at = time.monotonic()
        self._quiet = ""
        self._flights: dict[str, _Flight] = {}
        self._keys: dict[Place, str] = {}
        self._n_forgiven: Counter[Place] = Counter()
        self._n_threads = 0
        self._sized_at = float("-inf")
        self._known: frozenset[str] | None = None  # workers whose versions were compared

    def with_attempt(self, attempt: Attempt) -> DaskExecutor:
        """Another executor on the same client."""
        return DaskExecutor(self._client, attempt, preparation=self._preparation, stall_s=self._stall_s, replace=self._replace)

    def describe(self) -> str:
        """One line for people: the scheduler's address and the number of workers. Raises Interrupted as `outcomes` does."""
        if not self._connected():
            raise _lost()
        try:
            return f"dask {self._client.scheduler_info(n_workers=0)['address']}, {len(self._workers())} workers"
        except (OSError, ClosedClientError) as error:
            raise _lost() from error

    def waiting(self) -> str:
        """Whether there is anybody to work, and does."""
        if self._n_threads or not self._flights:
            return self._quiet
        return "the scheduler has no workers; start some: dask worker ADDRESS --nthreads 1"

    def outcomes(self, worklist: Worklist) -> Iterator[Sequence[Outcome]]:
        """Outcomes as they come; the window follows the number of workers as it is now.

        Raises:
            Interrupted: ``scheduler_unreachable`` when the connection to the scheduler is lost, or it hangs. What is committed
                stays.
            Refused: ``version_skew``: a worker that joined runs other versions.
        """
        self._heard_at = time.monotonic()
        try:
            self._client.subscribe_topic(self._topic, self._hear_start)
            yield from self._until_prepared()
            while True:
                self._fill(worklist)
                if not self._flights:
                    return
                prepare_driver()  # while the workers are at it
                yield self._collect()
                if stalled := self._stalled():
                    yield stalled
        except ClosedClientError as error:
            raise _lost() from error
        finally:
            self._cancel(list(self._flights.values()))
            with contextlib.suppress(Exception):  # a lost scheduler must not hide why we leave
                self._client.unsubscribe_topic(self._topic)
            self._flights.clear()
            self._keys.clear()

    def _until_prepared(self) -> Iterator[Sequence[Outcome]]:
        """Nothing, once a heartbeat, until the workers are ready for their first attempt or have had their time."""
        late = time.monotonic() + LONGEST_S
        while self._preparation is not None and not self._preparation.wait(HEARTBEAT_S) and time.monotonic() < late:
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
            try:
                threads = ask_scheduler(self._client, "ncores")
                self._n_threads, self._sized_at = sum(threads.values()), time.monotonic()
                self._compare_versions(frozenset(threads))
            except TimeoutError:
                pass  # one that hangs is found by what does not come
            except OSError as error:
                raise _lost() from error
        return TASKS_PER_WORKER * max(1, self._n_threads)

    def _compare_versions(self, workers: frozenset[str]) -> None:
        """Of workers that joined since; those of the beginning were compared then, and ours are all alike."""
        if self._replace is None and self._known is not None and (new := workers - self._known):
            refuse_version_skew(self._client, sorted(new))
        self._known = workers

    def _submit(self, task: Task) -> None:
        partition = task.partition
        place = (partition.stage, partition.number)
        if older := self._keys.get(place):
            self._drop(older, cancel=True)
        # Dask groups tasks by what stands before the uuid: the stage is the group, the partition can be read in the key.
        key = f"{partition.stage}-{partition.number:06d}-{uuid.uuid4()}"
        work = dumps((self._attempt, task))
        future = self._client.submit(
            _on_worker, work, self._topic, library_versions(), self._stall_s, key=key, pure=False, retries=0
        )
        self._flights[key] = _Flight(task, future)
        self._keys[place] = key
        future.add_done_callback(lambda done: self._heard.put(_Heard("done", str(done.key))))

    def _drop(self, key: str, *, cancel: bool = False) -> None:
        flight = self._flights.pop(key)
        self._keys.pop((flight.task.partition.stage, flight.task.partition.number), None)
        if cancel:
            self._cancel([flight])
        flight.future.release()

    def _cancel(self, flights: Sequence[_Flight]) -> None:
        """Tell the scheduler that nobody waits for them; it is not waited for."""
        with contextlib.suppress(Exception):
            self._client.cancel([flight.future for flight in flights], force=True)

    def _hear_start(self, event: tuple[float, Any]) -> None:
        said = event[1]
        process = _Process(str(said["worker"]), int(said["pid"]))
        for key in said["settled"]:
            self._heard.put(_Heard("settled", str(key), process))
        self._heard.put(_Heard("start", str(said["key"]), process))

    def _collect(self) -> list[Outcome]:
        """Everything heard within a heartbeat, as soon as there is something."""
        outcomes: list[Outcome] = []
        with contextlib.suppress(queue.Empty):
            outcomes += self._understand(self._heard.get(timeout=HEARTBEAT_S))
            while True:
                outcomes += self._understand(self._heard.get_nowait())
        if not self._connected():
            raise _lost()
        return outcomes

    def _connected(self) -> bool:
        return self._client.status == "running"

    def _understand(self, heard: _Heard) -> list[Outcome]:
        flight = self._flights.get(heard.key)
        if flight is None:
            return []  # a zombie of a task that was given up
        self._heard_at, self._quiet = time.monotonic(), ""
        if heard.what == "settled":
            flight.settling = flight.settling or flight.process == heard.process
            return []
        if heard.what == "start":
            suspected = flight.starts > 0 and not flight.excused and not self._forgives(flight)
            flight.starts += 1
            flight.started_at, flight.process = self._heard_at, heard.process
            flight.settling = flight.excused = False
            return [Suspected(task=flight.task, running=True)] if suspected else []
        outcome = self._outcome(flight)
        self._drop(heard.key)
        return [outcome]

    def _forgives(self, flight: _Flight) -> bool:
        """Whether it only settled where it was lost; a few times at most, should it be the one that ends its workers."""
        place = (flight.task.partition.stage, flight.task.partition.number)
        forgiven = flight.settling and self._n_forgiven[place] < MOST_FORGIVEN
        self._n_forgiven[place] += forgiven
        return forgiven

    def _outcome(self, flight: _Flight) -> Outcome:
        try:
            outcome = flight.future.result(timeout=RESULT_S)
        except (KilledWorker, FutureCancelledError) as error:
            if getattr(error, "reason", "") == CONNECTION_LOST:  # connected again already, to one that knows of no task of ours
                raise _lost() from error
            if self._forgives(flight):
                return Postponed(task=flight.task, reason="worker_lost", message="its worker was lost while it settled its files")
            return Suspected(task=flight.task, running=False)
        except TimeoutError:  # it ended, and its worker died of another task before the result was fetched: it is not to blame
            return Postponed(task=flight.task, reason="worker_lost", message="its result was lost with its worker")
        except Exception as error:  # noqa: BLE001 (Dask's own: a task that cannot be sent or a result that cannot be read)
            return Failed(task=flight.task, reason="attempt_failed", message=f"{type(error).__name__} in Dask", final=False)
        if isinstance(outcome, str):
            message = f"a worker runs {outcome}"
            return Failed(task=flight.task, reason="version_skew", message=message, final=True, stops_run=True)
        return outcome

    def _stalled(self) -> list[Outcome]:
        """What is to be told where an attempt, or the whole cluster, has not moved for the stall limit; usually nothing."""
        now = time.monotonic()
        stuck = [key for key, flight in self._flights.items() if flight.starts and now - flight.started_at > self._stall_s]
        if stuck:
            return self._give_up(stuck)
        if not self._flights or now - self._heard_at <= self._stall_s or not (self._n_threads or self._replace):
            return []
        self._heard_at = now
        return self._replaced() if self._replace is not None else self._asked_again()

    def _give_up(self, keys: Sequence[str]) -> list[Outcome]:
        """Attempts that take too long: suspects, unless a worker was to begin them again and did not.

        Ours end with their worker; a foreign worker keeps its thread.
        """
        found = f"{len(keys)} attempt(s) have not ended within the stall limit of {self._stall_s:,.0f} s"
        said = evidence(self._client, keys, stall_s=self._stall_s)
        if not answers(self._client):
            raise self._hanging()
        flights = [self._flights[key] for key in keys]
        for key, flight in zip(keys, flights, strict=True):
            self._drop(key, cancel=True)
            if self._replace is not None and not flight.excused:
                for beside in self._flights.values():
                    if beside.process == flight.process and beside.starts and not beside.excused:
                        beside.excused, beside.started_at = True, time.monotonic()
                with contextlib.suppress(ProcessLookupError):
                    os.kill(flight.process.pid, signal.SIGKILL)
        done = "their workers were ended, and are started anew" if self._replace else "they are tried elsewhere"
        tasks = tuple(flight.task for flight in flights)
        told = Stalled(tasks=tasks, seconds=self._stall_s, found=found, done=done, evidence=said)
        return [told, *(_given_back(flight) for flight in flights)]

    def _replaced(self) -> list[Outcome]:
        """Nothing at all comes from a cluster of ours: another takes its place. Whoever had begun there is a suspect."""
        assert self._replace is not None
        found = f"nothing came from the cluster for {self._stall_s:,.0f} s"
        said = evidence(self._client, self._flights, stall_s=self._stall_s)
        flights = list(self._flights.values())
        self._flights.clear()
        self._keys.clear()
        self._client = self._replace()
        self._client.subscribe_topic(self._topic, self._hear_start)
        self._heard_at, self._sized_at = time.monotonic(), float("-inf")
        tasks = tuple(flight.task for flight in flights)
        told = Stalled(tasks=tasks, seconds=self._stall_s, found=found, done="the cluster was replaced", evidence=said)
        return [told, *(_given_back(flight) for flight in flights)]

    def _asked_again(self) -> list[Outcome]:
        """Nothing comes from a cluster that is not ours: what was not begun is handed out once more, and people are told."""
        if not answers(self._client):
            raise self._hanging()
        found = f"no worker began or ended an attempt for {self._stall_s:,.0f} s: busy with others' tasks, or stuck"
        said = evidence(self._client, self._flights, stall_s=self._stall_s)
        flights = list(self._flights.items())
        for key, _ in flights:
            self._drop(key, cancel=True)
        self._quiet = f"{found}; look at its workers, or end them"
        tasks = tuple(flight.task for _, flight in flights)
        told = Stalled(tasks=tasks, seconds=self._stall_s, found=found, done="the tasks are handed out anew", evidence=said)
        return [told, *(_given_back(flight) for _, flight in flights)]

    def _hanging(self) -> Interrupted:
        return Interrupted(
            "scheduler_unreachable",
            f"the scheduler does not answer, and nothing came for {self._stall_s:,.0f} s; what is committed stays",
            remedy="start the scheduler anew",
        )


def _lost() -> Interrupted:
    return Interrupted(
        "scheduler_unreachable", "the connection to the scheduler is lost; what is committed stays", remedy="start the scheduler"
    )


def _given_back(flight: _Flight) -> Outcome:
    if flight.excused:
        return Postponed(task=flight.task, reason="stalled", message="it was not begun again")
    if flight.starts:
        return Suspected(task=flight.task, running=False, reason="stalled")
    return Postponed(task=flight.task, reason="stalled", message="it was never begun")
