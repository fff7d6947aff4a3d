"""Named places at which a test lets a process die, fail or stop: every step after which a crash would find another world.

A place says ``reach(Point.RELEASED)``. Unarmed, which is always outside tests, that is one look at a global (about 40 ns, where
the step beside it takes at least some 100,000: a system call that waits for a disk, or a transaction).

Armed is a process by ``BATCHSCORE_FAILPOINTS="POINT=ACTION[@N]; …"`` in its environment, at the N-th time that it comes by
(the first, if not said), once. POINT is a `Point` or, as ``file *``, a pattern of several that are counted together. ACTION:

    kill    SIGKILL: nothing is cleaned up
    raise   an exception that nobody foresaw
    stop    SIGSTOP, all threads: it goes on where it was when somebody sends SIGCONT, which may be long after its lease
    full    OSError ENOSPC, as of a full disk
    io      OSError EIO, as of a failing one

Only a process below pytest may be armed: elsewhere the variable is an accident, and the process refuses to start.
`tests/chaos` walks every point with every action.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import time
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

VARIABLE: Final = "BATCHSCORE_FAILPOINTS"
UNDER_TEST: Final = "PYTEST_CURRENT_TEST"  # pytest's own; processes that a test starts inherit it
ACTIONS: Final = ("kill", "raise", "stop", "full", "io")
_ARMING: Final = re.compile(r"(?P<point>[a-z *]+)=(?P<action>[a-z]+)(@(?P<at>[1-9][0-9]*))?")


class Point(StrEnum):
    """Where a process may be told to fail, in the order of a run. ``…ing``: inside a transaction that is not committed."""

    RUN_OPENED = "run opened"  # the epoch is ours; nothing is done yet
    STAGE_CUT = "stage cut"  # partitions are computed, and nobody knows of them
    STAGE_LAID_OUT = "stage laid out"
    ATTEMPT_BEGUN = "attempt begun"
    FILE_NAMED = "file named"  # its folder is there, it is not
    FILE_GROWING = "file growing"  # a row group is written
    FILE_WRITTEN = "file written"  # under its temporary name, perhaps in memory only
    FILE_SYNCED = "file synced"
    FILE_LINKED = "file linked"  # two names
    FILE_RENAMED = "file renamed"  # its final name alone, perhaps in memory only
    FILE_FOLDER_SYNCED = "file folder synced"
    FILE_READ_BACK = "file read back"
    ATTEMPT_DONE = "attempt done"  # files are there, the receipt is not home
    RECEIPTS_ACCEPTING = "receipts accepting"  # partitions are committed, their files not yet referred to
    RECEIPTS_COMMITTED = "receipts committed"
    RUN_HELD = "run held"
    AUDIT_KEY_MADE = "audit key made"  # under a temporary name, with the first entry of the trail
    HOLD_APPROVED = "hold approved"
    FAILURE_COUNTED = "failure counted"
    SUSPICION_COUNTED = "suspicion counted"
    DECISION_WRITTEN = "decision written"  # the memory is not
    DECISION_UNRECORDED = "decision unrecorded"  # both files are there, and nothing refers to them
    DECISION_RECORDED = "decision recorded"
    RELEASE_BEGUN = "release begun"
    FLAGS_INSERTING = "flags inserting"  # after a statement
    FLAGS_INSERTED = "flags inserted"  # between two transactions of a release
    RELEASING = "releasing"  # ``released_at`` is set, the audit trail does not tell yet
    AUDIT_APPENDING = "audit appending"  # entries without a head
    RELEASED = "released"
    RUN_CLOSED = "run closed"
    UNDO_BEGUN = "undo begun"
    UNDO_WITHDRAWING = "undo withdrawing"  # a flag is withdrawn, its heir does not stand
    UNDO_WITHDRAWN = "undo withdrawn"  # between two transactions of an undo
    UNDONE = "undone"
    CLEAN_DELETED = "clean deleted"  # one file of several
    TRANSACTION_DONE = "transaction done"  # any: its COMMIT is not sent
    TRANSACTION_COMMITTED = "transaction committed"  # any: its COMMIT has not answered


class ForcedFailure(Exception):
    """What ``raise`` raises: no error of batchscore's, as a bug would be none."""


@dataclass(kw_only=True, slots=True)
class _Armed:
    """One action, and how often its points must still be reached."""

    point: str
    action: str
    left: int
    fired: Path | None

    def reached(self, point: Point) -> None:
        if self.left and fnmatchcase(point, self.point):
            self.left -= 1
            if not self.left:
                if self.fired is not None:
                    self.fired.touch()
                _act(self.action)


_armed: tuple[_Armed, ...] | None = None


def reach(point: Point) -> None:
    """Go by a place; nothing happens, unless a test armed it in this process."""
    if _armed is not None:
        for one in _armed:
            one.reached(point)


def arm(said: str, fired: Path | None = None) -> None:
    """Arm this process, in place of what was armed before; an empty text disarms it.

    ``fired``: a file that is made before an action is taken, since what was armed need not be reached.

    Raises:
        ValueError: it is not understood, or no point has that name.
    """
    global _armed  # noqa: PLW0603 (the one switch of the process)
    _armed = tuple(_understood(part.strip(), fired) for part in said.split(";")) if said.strip() else None


def _understood(part: str, fired: Path | None) -> _Armed:
    found = _ARMING.fullmatch(part)
    if found is None or found["action"] not in ACTIONS or not any(fnmatchcase(point, found["point"]) for point in Point):
        msg = f"{VARIABLE}: {part!r} is no POINT=ACTION[@N]; actions: {', '.join(ACTIONS)}; points: {', '.join(Point)}"
        raise ValueError(msg)
    return _Armed(point=found["point"], action=found["action"], left=int(found["at"] or 1), fired=fired)


def _act(action: str) -> None:
    match action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(0.05)  # a thread may get this far before the whole process stands
        case "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        case "io":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        case _:
            raise ForcedFailure


if _said := os.environ.get(VARIABLE):
    if UNDER_TEST not in os.environ:
        msg = f"{VARIABLE} is set, which lets processes die on purpose, and this is no test: unset {VARIABLE}"
        raise RuntimeError(msg)
    arm(_said)
