"""A driver's name tells whether its process is still there."""

from __future__ import annotations

import os
import subprocess
import sys

from batchscore.driver import driver_name, is_gone


def test_this_process_is_there() -> None:
    assert not is_gone(driver_name())


def test_an_ended_process_is_gone_even_when_its_number_is_used_again() -> None:
    host, pid, _ = driver_name().rsplit(":", 2)
    child = subprocess.run(
        [sys.executable, "-c", "from batchscore.driver import driver_name; print(driver_name())"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert is_gone(child.stdout.strip())
    assert is_gone(f"{host}:{pid}:1")
    assert int(pid) == os.getpid()


def test_of_another_host_or_another_form_nothing_is_known() -> None:
    assert not is_gone("elsewhere:1:1")
    assert not is_gone("")
    assert not is_gone("first")
