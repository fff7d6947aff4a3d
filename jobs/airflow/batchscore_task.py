"""One batchscore command as one Airflow task: the command line, and what its exit code makes of the task. No logic beyond that.

BATCHSCORE names the program, BATCHSCORE_JOBS the folder of specs, BATCHSCORE_OPTIONS where attempts run.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

PROGRAM = os.environ.get("BATCHSCORE", "/opt/batchscore/bin/batchscore")
JOBS = os.environ.get("BATCHSCORE_JOBS", "/srv/batchscore/jobs")
OPTIONS = shlex.split(os.environ.get("BATCHSCORE_OPTIONS", "--scheduler tls://127.0.0.1:8786 --max-wait 120 --log -"))

# 0 is success. 1 and whatever is not here: failed, and to try again would not help.
ENDS: dict[int, tuple[type[AirflowException], str]] = {
    2: (AirflowFailException, "refused: nothing was written; the log says what and its remedy"),
    3: (AirflowSkipException, "done, with partitions set aside: batchscore status RUN --quarantined"),
    4: (AirflowFailException, "held: a person must approve, or its source must rest: batchscore status RUN"),
    5: (AirflowException, "interrupted: the next try goes on where this one stopped"),
}


class Batchscore(BaseOperator):
    """Runs ``batchscore WORDS…``. Only an interrupted command is tried again; Airflow's stop is a SIGTERM, and is drained."""

    template_fields: Sequence[str] = ("words",)

    def __init__(self, *, words: Sequence[str], **others: Any) -> None:
        super().__init__(retries=3, retry_delay=timedelta(minutes=5), **others)
        self.words = [*words, *OPTIONS]
        self._process = SubprocessHook()

    def execute(self, context: Any) -> None:
        """Run it to its end."""
        code = self._process.run_command(command=[PROGRAM, *self.words], env=dict(os.environ), cwd=JOBS).exit_code
        if code != 0:
            kind, means = ENDS.get(code, (AirflowFailException, "failed: a bug, or what the log says"))
            raise kind(f"exit {code}, {means}")

    def on_kill(self) -> None:
        """Ask it to stop: what is under way is finished and committed."""
        self._process.send_sigterm()
