"""A driver's name tells whether its process is still there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from batchscore import driver
from batchscore.driver import driver_name, is_gone
from tests.commands import succeeded


def test_this_process_is_there() -> None:
    assert not is_gone(driver_name())


def test_an_ended_process_is_gone_even_when_its_number_is_used_again() -> None:
    host, pid, _ = driver_name().rsplit(":", 2)
    assert is_gone(succeeded(sys.executable, "-c", "from batchscore.driver import driver_name; print(driver_name())").strip())
    assert is_gone(f"{host}:{pid}:1")
    assert int(pid) == os.getpid()


def test_where_proc_hides_processes_one_that_is_there_is_not_gone_and_one_that_ended_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = subprocess.Popen(["sleep", "60"])
    host = driver_name().split(":")[0]
    mine, its = driver_name(), f"{host}:{child.pid}:4711"
    assert is_gone(its), "its number is another process's by now"
    monkeypatch.setattr(driver, "PROC", tmp_path)  # as with hidepid, or where it is not mounted
    assert not is_gone(mine)
    assert not is_gone(its), "whether it is the same one cannot be seen: the lease decides"
    assert driver_name() == f"{host}:{os.getpid()}:"
    assert not is_gone(driver_name())
    child.kill()
    child.wait()
    assert is_gone(its)
    assert is_gone(f"{host}:{child.pid}:")


def test_a_zombie_is_gone() -> None:
    says = [sys.executable, "-c", "from batchscore.driver import driver_name; print(driver_name())"]
    with subprocess.Popen(says, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        name = child.stdout.read().strip()
        deadline = time.monotonic() + 60
        while not is_gone(name):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert child.wait() == 0


def test_of_another_host_or_another_form_nothing_is_known() -> None:
    assert not is_gone("elsewhere:1:1")
    assert not is_gone("")
    assert not is_gone("first")
