"""A driver and its workers that die while `reconsider` is under way: each once, at the worst moment."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Final

from batchscore.attempt import attempt
from batchscore.events import Event, StageStarted
from batchscore.executors.connect import remote_cluster
from batchscore.failpoints import arm
from batchscore.pipeline import run
from batchscore.plan import Stage, Task
from batchscore.planner import make_plan
from batchscore.receipt import Receipt
from batchscore.spec import read_spec
from batchscore.store import open_store
from tests.chaos.driver import LEASE_S

KILLED: Final = "worker.killed"


def killed_once(task: Task) -> Receipt:
    """An attempt; the first to look closer kills its worker when its file is written and its receipt is not home."""
    receipt = attempt(task)
    if task.partition.stage is Stage.RECONSIDER:
        try:
            (Path(task.store) / KILLED).touch(exist_ok=False)
        except FileExistsError:
            return receipt
        os.kill(os.getpid(), signal.SIGKILL)
    return receipt


def drive(spec_path: str, address: str, at: str) -> None:
    """Drive the run to its end, or to the failpoint ``at`` once `reconsider` has begun; empty: none."""

    def told(event: Event) -> None:
        if isinstance(event, StageStarted) and event.stage == Stage.RECONSIDER and at:
            arm(f"{at}=kill")

    plan = make_plan(read_spec(Path(spec_path)))
    with remote_cluster(killed_once, address) as executor:
        store = open_store(Path(plan.spec.store), "integer", lease_s=LEASE_S)
        run(plan, executor=executor, store=store, observer=told)
