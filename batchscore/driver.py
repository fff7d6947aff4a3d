"""Who drives a run: a name for this process, and whether the process that another name stands for is gone.

A killed driver leaves a lease behind. On the same host we need not wait for it to run out: the process is there or it is
not. On another host nobody can tell, and the lease decides. Being wrong is harmless: the epoch fences the old driver.
"""

from __future__ import annotations

import os
import pwd
import socket
from pathlib import Path


def driver_name() -> str:
    """``host:pid:start``; the start time tells a process from a later one with its number."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def operator_name() -> str:
    """``user@host``: whoever types a command, as the operating system names them. For the record; nothing is checked by it."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user without an entry
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def is_gone(name: str) -> bool:
    """Whether ``name`` is a process of this host that has ended; False when it cannot be known."""
    host, _, process = name.rpartition(":")[0].rpartition(":")
    started = name.rpartition(":")[2]
    return host == socket.gethostname() and process.isdigit() and _started(int(process)) != started


def _started(pid: int) -> str:
    """When a process began, in clock ticks since boot; empty when there is none, or only a zombie of it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in {"Z", "X"} else fields[19]
