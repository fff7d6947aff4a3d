"""A driver whose score attempts do not end: for what a stop does meanwhile.

usage: held_driver.py SPEC inline|local DRAIN_S AT_ONCE_AFTER_S
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from batchscore.cli import stopping
from batchscore.dispatch import dispatcher
from batchscore.dispatch.limits import Limits
from batchscore.errors import BatchscoreError
from batchscore.executors.connect import local_cluster
from batchscore.executors.inline import InlineExecutor
from batchscore.pipeline import run
from batchscore.planner import make_plan
from batchscore.ports import Executor
from batchscore.spec import read_spec
from batchscore.store import open_store
from tests import fake_attempts as fakes


def main(spec: str, where: str) -> int:
    plan = make_plan(read_spec(Path(spec)))
    opened: AbstractContextManager[Executor] = (
        nullcontext(InlineExecutor(fakes.score_when_told))
        if where == "inline"
        else local_cluster(fakes.score_when_told, n_workers=2)
    )
    try:
        with stopping.stop_on_signal() as stop, opened as executor:
            store = open_store(Path(plan.spec.store), "integer")
            try:
                run(plan, executor=executor, store=store, observer=lambda _event: None, limits=Limits(stop=stop))
            finally:
                stop.ended()
    except BatchscoreError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    dispatcher.DRAIN_S, stopping.AT_ONCE_AFTER_S = map(float, sys.argv[3:5])  # type: ignore[misc]  # Final elsewhere: a test's are short
    sys.exit(main(sys.argv[1], sys.argv[2]))
