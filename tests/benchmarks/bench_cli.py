"""Benchmarks of the command line: what `--help` costs over importing click, and how soon `status` answers."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from tests.benchmarks.figure import Figure
from tests.small_world import make_small_world

COMMAND = str(Path(sys.executable).with_name("batchscore"))
N_TIMES = 15


def help_time(_data: Path) -> Iterator[Figure]:
    """Wall time of ``batchscore --help`` over that of ``python -c 'import click'``: medians of interleaved calls."""
    ours, theirs = [], []
    for _ in range(N_TIMES):
        ours.append(_seconds([COMMAND, "--help"]))
        theirs.append(_seconds([sys.executable, "-c", "import click"]))
    yield Figure(
        name="cli help",
        ratio=median(ours) / median(theirs),
        floor=1.5,
        higher_is_better=False,
        detail=f"{median(ours) * 1000:.0f} ms, import click {median(theirs) * 1000:.0f} ms",
    )


def status_time(_data: Path) -> Iterator[Figure]:
    """Seconds that ``batchscore status`` takes on a store with runs: a limit of patience, so no ratio."""
    with tempfile.TemporaryDirectory() as folder:
        world = make_small_world(Path(folder))
        for _ in range(3):
            subprocess.run([COMMAND, "run", str(world.spec_path), "--inline", "--again"], check=True, capture_output=True)
        seconds = [_seconds([COMMAND, "status", "--store", str(world.store)]) for _ in range(N_TIMES)]
    yield Figure(
        name="cli status seconds",
        ratio=median(seconds),
        floor=0.8,
        higher_is_better=False,
        detail=f"median of {N_TIMES}, slowest {max(seconds):.2f} s, 3 runs in the store",
    )


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start
