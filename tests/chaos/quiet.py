"""How a child of the kit ends: by an exit code as a command would, without a traceback on the test's terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batchscore.errors import BUG, DONE, BatchscoreError
from tests.orphans import killed_with_parent, lead_a_group


def quietly(work: Callable[..., None], arguments: tuple[Any, ...], environment: dict[str, str]) -> None:
    """Do ``work`` and end the process: 0, the exit code of what batchscore raised, or 1. What it says goes nowhere.

    With ``CHAOS_LOG`` in the environment the end of each process is noted there, for whoever looks for a fault in the kit.
    """
    killed_with_parent()
    lead_a_group()
    os.environ.update(environment)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.dup2(nowhere, sys.stderr.fileno())
    try:
        work(*arguments)
    except BatchscoreError as error:
        _note(f"{error}")
        os._exit(error.exit_code)
    except BaseException as error:  # noqa: BLE001 (the process's edge)
        _note(f"{type(error).__name__}: {error}")
        os._exit(BUG)
    os._exit(DONE)


def _note(said: str) -> None:
    if log := os.environ.get("CHAOS_LOG"):
        with Path(log).open("a", encoding="utf-8") as out:
            out.write(f"{os.getpid()} {said}\n")
