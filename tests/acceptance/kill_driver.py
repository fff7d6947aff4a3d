"""A driver for the kill tests: a real run on a real scheduler, its attempts slowed so that kills find something in flight.

usage: kill_driver.py SPEC SCHEDULER
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from batchscore.attempt import attempt
from batchscore.errors import BatchscoreError
from batchscore.executors.connect import remote_cluster
from batchscore.pipeline import run
from batchscore.plan import Task
from batchscore.planner import make_plan
from batchscore.receipt import Receipt
from batchscore.spec import read_spec
from batchscore.store import open_store

SLOWED_S = 0.05


def slow_attempt(task: Task) -> Receipt:
    time.sleep(SLOWED_S)
    receipt = attempt(task)
    time.sleep(SLOWED_S)  # after its files are written, before its receipt is home: the worst moment to die
    return receipt


def main() -> int:
    from tests.acceptance import kill_driver  # by its module name, so that workers can import the attempt

    try:
        plan = make_plan(read_spec(Path(sys.argv[1])))
        with remote_cluster(kill_driver.slow_attempt, sys.argv[2]) as executor:
            row = run(plan, executor=executor, store=open_store(Path(plan.spec.store), "integer"), observer=lambda _event: None)
    except BatchscoreError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(row.run_id)
    return 0


if __name__ == "__main__":
    sys.exit(main())
