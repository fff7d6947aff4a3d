"""What tests of whole runs share: a run of a world's spec, what it told, and the digest of what came out."""

from __future__ import annotations

import threading
from pathlib import Path

from batchscore.attempt import attempt
from batchscore.dispatch.limits import Limits
from batchscore.events import Event
from batchscore.executors.inline import InlineExecutor
from batchscore.pipeline import run
from batchscore.planner import make_plan
from batchscore.ports import Executor, RunRow
from batchscore.store import open_store
from tests.run_digest import run_digest
from tests.small_world import SmallWorld


class Heard(list[Event]):
    """An observer that remembers."""

    def __call__(self, event: Event) -> None:
        self.append(event)


def walk(
    world: SmallWorld,
    executor: Executor | None = None,
    *,
    again: bool = False,
    heard: Heard | None = None,
    stop: threading.Event | None = None,
    **changes: str,
) -> RunRow:
    """Drive the plan of the world's spec, with ``changes`` of its lines, to its end, or until ``stop`` is set.

    Raises:
        Interrupted: it was stopped.
    """
    plan = make_plan(world.spec(**changes))
    store = open_store(Path(plan.spec.store), world.kind)
    return run(
        plan,
        executor=executor or InlineExecutor(attempt),
        store=store,
        observer=heard if heard is not None else Heard(),
        again=again,
        limits=Limits(stop=stop or threading.Event()),
    )


def digest_of(world: SmallWorld, row: RunRow) -> str:
    return run_digest(Path(row.plan.spec.store), row.run_id)
