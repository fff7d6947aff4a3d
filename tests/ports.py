"""Ports of loopback for servers that tests start, and start again at the same port after a kill.

They lie below those that the kernel gives to connections. A port of the kernel's can be some connection's by the time a server
binds it, or binds it again; and who knocks there meanwhile can be given that very port, and be connected to itself.
"""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from pathlib import Path
from typing import IO, Final

FIRST, END = 20_000, 32_000  # Linux's own begin at 32,768
_KEPT: Final[list[IO[bytes]]] = []


def reserved_port() -> int:
    """A port that nothing listens at, and that no other process of tests is given while this one lives."""
    folder = Path(tempfile.gettempdir()) / f"batchscore-ports-{os.geteuid()}"
    folder.mkdir(exist_ok=True)
    for port in range(FIRST, END):
        kept = (folder / str(port)).open("ab")
        try:
            fcntl.flock(kept, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as free:
                free.bind(("127.0.0.1", port))
        except OSError:
            kept.close()
            continue
        _KEPT.append(kept)
        return port
    raise OSError(f"no port from {FIRST} to {END} is free")
