"""One attempt alone in a child process: what a partition gets that two workers died of.

Dask's workers are daemonic and may not use multiprocessing, so the child is a plain interpreter that reads a pickled
(attempt, task) from its standard input and answers on its standard output. If it dies, only it dies, and that counts.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

from batchscore.executors.guarded import Attempt, attempted
from batchscore.plan import Task
from batchscore.receipt import Failed, Finished, Postponed


def attempted_alone(attempt: Attempt, task: Task, *, limit_s: float | None = None) -> Finished | Failed | Postponed:
    """The outcome of one attempt made in a child process; the child's death is a failure ``worker_lost``.

    One that has not ended after ``limit_s`` is ended, and that is a failure ``stalled``.
    """
    try:
        child = subprocess.run(
            [sys.executable, "-m", "batchscore.executors.isolated"],
            input=pickle.dumps((attempt, task)),
            capture_output=True,
            check=False,
            timeout=limit_s,
        )
    except subprocess.TimeoutExpired:
        message = f"alone in a child process it had not ended after {limit_s:,.0f} s; see --stall-limit"
        return Failed(task=task, reason="stalled", message=message, final=False)
    if child.returncode != 0:
        how = f"signal {-child.returncode}" if child.returncode < 0 else f"exit {child.returncode}"
        return Failed(task=task, reason="worker_lost", message=f"its child process died ({how})", final=False)
    outcome: Finished | Failed | Postponed = pickle.loads(child.stdout)  # noqa: S301 (from our own child)
    return outcome


def _main() -> None:
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not be taken for the answer
    attempt, task = pickle.load(sys.stdin.buffer)  # noqa: S301 (from our own parent)
    with answer:
        pickle.dump(attempted(attempt, task), answer)


if __name__ == "__main__":
    _main()
