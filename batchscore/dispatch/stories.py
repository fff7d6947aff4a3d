"""Keeps what a cluster said when nothing moved, for whoever asks in the morning why a run was slow in the night."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from batchscore.receipt import Stalled

FOLDER: Final = "stalls"


def write_story(folder: Path, run_id: str, stalled: Stalled) -> str:
    """Write it below the store's ``folder``; the path, or nothing where it could not be written: that must not stop a run."""
    path = folder / FOLDER / f"{run_id}-{time.time_ns()}.txt"
    places = ", ".join(f"{task.partition.stage} {task.partition.number}" for task in stalled.tasks)
    lines = (f"{stalled.found}; {stalled.done}", f"under way: {places}", "", *stalled.evidence, "")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines), encoding="utf-8")
    except OSError:
        return ""
    return str(path)
