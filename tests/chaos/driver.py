"""The driver of the kill programme: a real run on a real scheduler, its attempts slowed so that kills find some in flight."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final, cast

from sqlalchemy import ColumnElement, Engine

from batchscore.attempt import attempt
from batchscore.executors.connect import remote_cluster
from batchscore.failpoints import arm
from batchscore.pipeline import run
from batchscore.plan import Task
from batchscore.planner import make_plan
from batchscore.receipt import Receipt
from batchscore.spec import read_spec
from batchscore.store import ledger, open_store

SLOWED_S: Final = 0.02
LEASE_S: Final = 1.5
BEGUN: Final = "attempts.begun"


def slow_attempt(task: Task) -> Receipt:
    """An attempt, a moment before it, and one after its files are written and before its receipt is home: the worst to die.

    Its beginning is noted in the store's folder, in one write.
    """
    with (Path(task.store) / BEGUN).open("a", encoding="ascii") as begun:
        begun.write(f"{task.partition.stage} {task.partition.number}\n")
    time.sleep(SLOWED_S)
    receipt = attempt(task)
    time.sleep(SLOWED_S)
    return receipt


def drive(spec_path: str, address: str, armed: str = "", clock_s: int = 0, fired: Path | None = None) -> None:
    """Drive the run to its end. ``clock_s``: how far the database's clock has jumped, as this driver sees it.

    ``fired`` is made when the driver meets what was armed, or sees that clock.
    """
    arm(armed, fired)
    if clock_s:
        right = vars(ledger)["now"]

        def jumped(engine: Engine) -> ColumnElement[Any]:
            if fired is not None:
                fired.touch()
            return cast("ColumnElement[Any]", right(engine) + clock_s)

        vars(ledger)["now"] = jumped
    plan = make_plan(read_spec(Path(spec_path)))
    with remote_cluster(slow_attempt, address) as executor:
        store = open_store(Path(plan.spec.store), "integer", lease_s=LEASE_S)
        run(plan, executor=executor, store=store, observer=lambda _event: None)
