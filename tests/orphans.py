"""Processes of tests end with the test run, whatever becomes of it: a killed pytest must leave no cluster and no server."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_SETPRIV: Final = shutil.which("setpriv")
# Before a command line: what it starts is killed when the thread that started it ends.
DYING_WITH_US: Final = (_SETPRIV, "--pdeathsig", "KILL") if _SETPRIV else ()


def killed_with_parent() -> None:
    """This process is killed when the thread that made it ends, even while it is stopped."""
    if _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def lead_a_group() -> None:
    """When this process dies, the kernel hangs up on what it started, if that is stopped and nobody is left to continue it."""
    os.setpgid(0, 0)
