"""The port of observers: who hears what happens in a run. Implemented by `observe`; none changes what a run does."""

from __future__ import annotations

from typing import Protocol

from batchscore.events import Event


class Observer(Protocol):
    """Hears what happens."""

    def __call__(self, event: Event) -> None:
        """One event; must not raise."""
