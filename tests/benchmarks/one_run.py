"""One whole run in a process of its own, so that its memory can be watched from outside: DATA ACCOUNTS MODEL."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.benchmarks.bench_score import batchscore_run

if __name__ == "__main__":
    batchscore_run(*map(Path, sys.argv[1:4]))
