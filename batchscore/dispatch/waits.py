"""Why nothing is handed out at the moment, and until when: a stop, a live source that wants rest, nobody to work."""

from __future__ import annotations

import time
from datetime import timedelta

from batchscore.dispatch.limits import Limits
from batchscore.errors import Interrupted, Paused
from batchscore.events import Waiting
from batchscore.ports import Observer, RunHandle, Store
from batchscore.sources.brake import LOOK_EVERY_S, Brake, paused


class Waits:
    """The waits of one run: each is told once, to the observer and in the run's row, and so is its end."""

    def __init__(self, handle: RunHandle, store: Store, observer: Observer, limits: Limits) -> None:
        self._handle = handle
        self._store = store
        self._observer = observer
        self._stop, self._max_wait = limits.stop, limits.max_wait
        self._reason = ""
        self._since = 0.0

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for."""
        return self._stop.is_set()

    def stop_if_asked(self) -> None:
        """Raise Interrupted when a stop was asked for."""
        if self.stopping:
            raise Interrupted("interrupted", "stopped on request; everything committed is kept")

    def may_hand_out(self, brake: Brake) -> bool:
        """Whether another attempt may begin."""
        return not self.stopping and brake.verdict().move == "go"

    def until_free(self, brake: Brake) -> None:
        """Return when the brake lets go; meanwhile nothing is under way.

        Raises:
            Paused: it does not within ``max_wait``, or the source is above its critical load.
            Interrupted: a stop was asked for.
        """
        began = time.monotonic()
        try:
            while reason := self.held_by(brake):
                self.tell(reason)
                self._stop.wait(LOOK_EVERY_S)
                self.stop_if_asked()
        finally:
            if self._reason:
                self._store.note_held_back(self._handle, time.monotonic() - began, brake.worst_lag_s)
        self.tell("")

    def held_by(self, brake: Brake) -> str:
        """Why a live source is not read at the moment; empty when it is.

        Raises:
            Paused: ``source_overloaded``.
        """
        verdict = brake.verdict()
        if verdict.move == "end":
            raise paused(verdict)
        return verdict.reason

    def tell(self, reason: str) -> None:
        """Say why nothing goes on; an empty reason says that it does.

        Raises:
            Paused: this wait has lasted as long as it may.
        """
        if reason != self._reason:
            if not self._reason:
                self._since = time.monotonic()
            self._reason = reason
            self._store.note_waiting(self._handle, reason)
            self._observer(Waiting(run_id=self._handle.run_id, reason=reason))
        waited = timedelta(seconds=time.monotonic() - self._since)
        if reason and self._max_wait is not None and waited >= self._max_wait:
            raise Paused("source_paused", f"waited as long as it was told to: {reason}")
