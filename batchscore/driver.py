"""Who drives a run: a name for this process, and whether the process that another name stands for is gone.

A killed driver leaves a lease behind. On the same host we need not wait for it to run out: the process is there or it is
not. On another host nobody can tell, and the lease decides. Being wrong is harmless: the epoch fences the old driver.
"""

from __future__ import annotations

import os
import pwd
import socket
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")


def driver_name() -> str:
    """``host:pid:start``; the start time tells a process from a later one with its number, and is empty where it is not told."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def operator_name() -> str:
    """``user@host``: whoever types a command, as the operating system names them. For the record; nothing is checked by it."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user without an entry
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def is_gone(name: str) -> bool:
    """Whether ``name`` is a process of this host that has ended; False when it cannot be known.

    The kernel is asked by signal 0, which nothing hides: `/proc` may be mounted so that it shows nobody else's processes
    (``hidepid``), or not at all. Only then is it asked whether the process of that number is still the same one.
    """
    host, _, process = name.rpartition(":")[0].rpartition(":")
    started = name.rpartition(":")[2]
    if host != socket.gethostname() or not process.isdigit():
        return False
    if not _exists(int(process)):
        return True
    now = _started(int(process))
    return bool(now and started) and (now == _ENDED or now != started)


_ENDED: Final = "ended"  # a zombie: it only waits for its parent


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def _started(pid: int) -> str:
    """When a process began, in clock ticks since boot; `_ENDED` of a zombie; empty where that cannot be seen."""
    try:
        fields = (PROC / str(pid) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return _ENDED if fields[0] in {"Z", "X"} else fields[19]
