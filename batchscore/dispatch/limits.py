"""What ends a walk early."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import timedelta


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What ends a walk early: a stop that is asked for, and a wait (for a live source, for workers) beyond ``max_wait``."""

    stop: threading.Event = field(default_factory=threading.Event)
    max_wait: timedelta | None = None
