"""Processes that a test started by a unit's or container's command line; ended, with all below them, when the test is over."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.acceptance.real_cluster import kill_family
from tests.deploy.units import Command
from tests.orphans import DYING_WITH_US
from tests.ports import reserved_port

# What systemd and Docker give too, and nothing of the tester's own.
BARE = ("PATH", "HOME", "LANG", "PYTHONPATH", "TMPDIR")


@contextmanager
def started(command: Command, log: Path, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command, running; what it says is appended to ``log``."""
    with log.open("ab") as said:
        process = subprocess.Popen(
            [*DYING_WITH_US, *command.words],
            env=environment(command) | more,
            cwd=log.parent,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        kill_family(process.pid)
        process.wait()


def finished(command: Command, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """The command, run to its end."""
    return told_by([*command.words, *more], cwd=folder, env=environment(command))


def told_by(
    words: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """What a program said until its end, and how it ended; it ends with the test run, if that is killed."""
    return subprocess.run([*DYING_WITH_US, *words], env=env, cwd=cwd, capture_output=True, text=True, check=False)


def environment(command: Command) -> dict[str, str]:
    return {name: os.environ[name] for name in BARE if name in os.environ} | command.environment


def free_ports(n: int) -> list[int]:
    return [reserved_port() for _ in range(n)]


def until_it_listens(port: int, process: subprocess.Popen[bytes]) -> None:
    """Return when something listens at the port of this machine; fail when the process has ended."""
    while process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    pytest.fail(f"{process.args!r} ended with {process.returncode}")
