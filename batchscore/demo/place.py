"""The demo's folder: written once, whole, and never on top of anything else.

A world is written into a hidden folder inside and moved up when it is complete; the marker, which names the world, comes last.
So a call that was stopped half-way leaves nothing that a later one would trust, or would refuse to replace.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

MARKER: Final = ".batchscore-demo"
_UNFINISHED: Final = ".batchscore-demo.tmp"


def holds(folder: Path) -> str | None:
    """What stands in ``folder``: a world's name, ``""`` when there is room for one, None when it is not the demo's."""
    marker = folder / MARKER
    if marker.is_file():
        return marker.read_text(encoding="utf-8")
    if not folder.exists() or (folder.is_dir() and {path.name for path in folder.iterdir()} <= {_UNFINISHED}):
        return ""
    return None


def fill(folder: Path, name: str, write: Callable[[Path], None]) -> None:
    """Let ``write`` lay out the world ``name`` for ``folder``, in which there is room."""
    unfinished = folder / _UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    write(unfinished)
    for path in unfinished.iterdir():
        path.rename(folder / path.name)
    unfinished.rmdir()
    (folder / MARKER).write_text(name, encoding="utf-8")
