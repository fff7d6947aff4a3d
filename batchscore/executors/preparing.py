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
from collections.abc import Callable
from typing import Any, Final

from distributed import Client, WorkerPlugin

LONGEST_S: Final = 30.0  # a worker that takes longer gets its first attempt all the same
Prepare = Callable[[], None]


class PrepareWorker(WorkerPlugin):
    """Runs ``prepare`` once on each worker, those that join later too."""

    name = "batchscore-prepare"

    def __init__(self, prepare: Prepare) -> None:
        self._prepare = pickle.dumps(prepare)  # by name: what it names is imported in the thread, not in the worker's event loop

    async def setup(self, worker: Any) -> None:  # noqa: ARG002 (distributed hands it by name)
        """Awaited by whoever registers the plugin; the worker goes on meanwhile."""
        await asyncio.to_thread(self._run)

    def _run(self) -> None:
        with contextlib.suppress(Exception):
            pickle.loads(self._prepare)()  # noqa: S301 (pickled above, and sent over the connection that attempts take)


def prepare_workers(client: Client, prepare: Prepare) -> threading.Event:
    """Let every worker run ``prepare``; the event is set when all have, or when it cannot be done."""
    done = threading.Event()

    def register() -> None:
        with contextlib.suppress(Exception):
            client.register_plugin(PrepareWorker(prepare))
        done.set()

    threading.Thread(target=register, name=PrepareWorker.name, daemon=True).start()
    return done


def prepare_driver() -> None:
    """Import what the driver needs when the first stage is done, and its workers would wait for: pyarrow's pandas."""
    importlib.import_module("pandas")
