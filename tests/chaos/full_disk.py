"""A run on a disk of its own that is too small again and again: STORE SPEC, in a namespace where one may be mounted.

Prints how each try ended, by the reason of the error, then the digest of the finished run.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from batchscore.attempt import attempt
from batchscore.errors import BatchscoreError
from batchscore.executors.inline import InlineExecutor
from batchscore.pipeline import run
from batchscore.planner import make_plan
from batchscore.spec import read_spec
from batchscore.store import open_reader, open_store
from tests.run_digest import run_digest

SIZES_KB = (64, 128, 192, 256, 320, 384, 512, 640, 768, 1_024, 1_536, 2_048, 4_096, 16_384)


def mount(store: Path, kilobytes: int, *, again: bool) -> None:
    """Give the disk that size; what is on it stays."""
    options = f"{'remount,' if again else ''}size={kilobytes}k"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(store)], check=True)


def main() -> int:
    store, spec = Path(sys.argv[1]), Path(sys.argv[2])
    for n, kilobytes in enumerate(SIZES_KB):
        mount(store, kilobytes, again=n > 0)
        try:
            plan = make_plan(read_spec(spec))
            row = run(plan, executor=InlineExecutor(attempt), store=open_store(store, "integer"), observer=lambda _event: None)
        except BatchscoreError as error:
            print(error.reason)
            continue
        assert not open_reader(store).quarantined(row.run_id)
        print(run_digest(store, row.run_id))
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
