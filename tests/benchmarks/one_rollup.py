"""One rollup attempt in a process of its own, which prints its peak memory in bytes: DATA MAILS STORE."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.benchmarks.bench_features import roll_up_file

if __name__ == "__main__":
    roll_up_file(*map(Path, sys.argv[1:4]))
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(int(peak.split()[1]) * 1024)  # not ru_maxrss: that of a new programme begins at its parent's
