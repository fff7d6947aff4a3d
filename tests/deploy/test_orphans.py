"""Of a test run that is killed no program is left that these tests started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

from tests.deploy.units import ROOT

RUN = """
import sys, time
from pathlib import Path
from tests.deploy.processes import started
from tests.deploy.units import Command
with started(Command(words=["sleep", "600"], environment={}), Path(sys.argv[1]) / "log") as process:
    print(process.pid, flush=True)
    time.sleep(600)
"""


def test_a_killed_test_run_leaves_no_program(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", RUN, tmp_path], env=environment, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        left = psutil.Process(int(killed.stdout.readline()))
        killed.kill()
    left.wait(timeout=10)
