"""What a driver is told beside its plan."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import timedelta

from batchscore.acceptance import Accepted
from batchscore.deadline import Deadline


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What ends a walk early: a stop that is asked for, and a wait (for a live source, for workers) beyond ``max_wait``.

    By when it is to be over, which ends nothing; and what of the plan was ``accepted`` to differ, which is recorded.
    """

    stop: threading.Event = field(default_factory=threading.Event)
    max_wait: timedelta | None = None
    deadline: Deadline | None = None
    accepted: tuple[Accepted, ...] = ()
