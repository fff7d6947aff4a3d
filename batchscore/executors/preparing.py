"""What is got ready while there is time: workers import and compile what attempts need while the driver still plans.

A worker that was just started knows nothing: its first attempt would pay for every import, and for the scorer's machine code,
about a second. This is done once a worker, in a thread of its own so that it answers the scheduler meanwhile; attempts are handed
out when it is done, so no two threads import at once. That it fails is nobody's business: the attempt that needs what is
missing says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import pickle
import threading
import uuid
from collections.abc import Callable
from typing import Any, Final

from distributed import Client, WorkerPlugin

LONGEST_S: Final = 30.0  # a worker that takes longer gets its first attempt all the same
Prepare = Callable[[], None]


class PrepareWorker(WorkerPlugin):
    """Runs ``prepare`` once on each worker, those that join later too; the worker says under ``topic`` that it is done.

    ``there``: addresses of the workers that the driver waits for. One that joins later takes no attempt before it is done.
    """

    name = "batchscore-prepare"

    def __init__(self, prepare: Prepare, topic: str, there: frozenset[str]) -> None:
        self._prepare = pickle.dumps(prepare)  # by name: what it names is imported in the thread, not in the worker's event loop
        self._topic = topic
        self._there = there

    async def setup(self, worker: Any) -> None:
        """Of a worker that is there, back at once: the scheduler waits for the answer, and is loud if the worker ends before."""
        done = asyncio.get_running_loop().create_future()
        threading.Thread(target=self._run, args=(worker, done), name=self.name, daemon=True).start()
        if worker.address not in self._there:
            await done

    def _run(self, worker: Any, done: asyncio.Future[None]) -> None:
        with contextlib.suppress(Exception):
            pickle.loads(self._prepare)()  # noqa: S301 (pickled above, and sent over the connection that attempts take)
        with contextlib.suppress(Exception):  # the worker is closing
            done.get_loop().call_soon_threadsafe(self._tell, worker, done)

    def _tell(self, worker: Any, done: asyncio.Future[None]) -> None:
        if not done.done():  # whoever waited may have given up
            done.set_result(None)
        worker.log_event(self._topic, worker.address)


class Preparation:
    """Every worker of a client running ``prepare``. What cannot be done is given up: attempts do without."""

    def __init__(self, client: Client, prepare: Prepare) -> None:
        self._client = client
        self._prepare = prepare
        self._topic = f"{PrepareWorker.name}-{uuid.uuid4().hex}"
        self._ready: set[str] = set()  # addresses
        self._there: frozenset[str] | None = None  # who is waited for; None: it is not known yet
        self._changed = threading.Condition()
        self._beginning = threading.Thread(target=self._begin, name=PrepareWorker.name, daemon=True)
        self._beginning.start()

    def wait(self, timeout_s: float) -> bool:
        """Whether all are ready, after at most so long."""
        with self._changed:
            return self._changed.wait_for(self._is_over, timeout_s)

    def end(self, timeout_s: float) -> None:
        """Wait until every worker has been told, at most so long: one that ends while the scheduler speaks to it is loud."""
        self._beginning.join(timeout_s)

    def _is_over(self) -> bool:
        told = self._there is not None and len(self._ready) >= len(self._there)  # a lost one's successor counts in its place
        return told or self._client.status == "closed"  # its cluster was replaced

    def _begin(self) -> None:
        there: frozenset[str] = frozenset()
        with contextlib.suppress(Exception):
            self._client.subscribe_topic(self._topic, self._hear)
            workers = frozenset(self._client.scheduler_info(n_workers=-1)["workers"])
            self._client.register_plugin(PrepareWorker(self._prepare, self._topic, workers))
            there = workers
        with self._changed:
            self._there = there
            self._changed.notify_all()

    def _hear(self, event: tuple[float, str]) -> None:
        with self._changed:
            self._ready.add(event[1])
            self._changed.notify_all()


def prepare_driver() -> None:
    """Import what the driver needs when the first stage is done, and its workers would wait for: pyarrow's pandas."""
    importlib.import_module("pandas")
