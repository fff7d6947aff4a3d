"""Why nothing is handed out at the moment, and until when: a stop, a person's wish, a live source that wants rest, no workers."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Final

from batchscore.dispatch.forecast import Forecast
from batchscore.dispatch.limits import Limits
from batchscore.dispatch.requests import Requests
from batchscore.errors import Interrupted, Paused
from batchscore.events import Waiting
from batchscore.ports import Observer, RunHandle, Store
from batchscore.sources.brake import NO_BRAKE, Brake, paused

PACE_S: Final = 0.25  # of a driver with nothing under way


class Waits:
    """The waits of one run: each is told once, to the observer and in the run's row, and so is its end."""

    def __init__(
        self, handle: RunHandle, store: Store, observer: Observer, limits: Limits, requests: Requests, forecast: Forecast
    ) -> None:
        self._handle = handle
        self._store = store
        self._observer = observer
        self._stop, self._max_wait = limits.stop, limits.max_wait
        self._requests = requests
        self._forecast = forecast
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
        return not self.stopping and self._requests.standing is None and brake.ruling().move == "go"

    def while_under_way(self, brake: Brake, others: str) -> None:
        """Tell why nothing more is handed out, if so, while attempts are under way; ``others``: the executor's reason."""
        self._forecast.look()
        request = self._requests.standing
        if request is not None:
            self.tell(f"{request.told}; what is in flight is finished first", "run_paused")
        else:
            self.tell(_held_by(brake) or others)

    def until_free(self, brake: Brake = NO_BRAKE) -> None:
        """Return when nothing is in the way; meanwhile nothing is under way.

        Raises:
            Paused: that takes longer than ``max_wait``, or the source is above its critical load.
            Cancelled: somebody asked for it.
            Interrupted: a stop was asked for.
        """
        held_s = 0.0
        try:
            self.stop_if_asked()
            while (request := self._requests.standing) is not None or _held_by(brake):
                began = time.monotonic()
                self._forecast.look()
                if request is not None:
                    self.tell(request.told, "run_paused")
                    self._requests.meet(request)
                else:
                    self.tell(_held_by(brake))
                self._stop.wait(PACE_S)
                held_s += 0.0 if request is not None else time.monotonic() - began
                self.stop_if_asked()
        finally:
            if held_s:
                self._store.note_held_back(self._handle, held_s, brake.worst_lag_s)
        self.tell("")

    def tell(self, reason: str, code: str = "source_paused") -> None:
        """Say why nothing goes on; an empty reason says that it does. ``code``: of the error when it has lasted too long.

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
            raise Paused(code, f"waited as long as it was told to: {reason}")


def _held_by(brake: Brake) -> str:
    """Why a live source is not read at the moment; empty when it is.

    Raises:
        Paused: ``source_overloaded``.
    """
    ruling = brake.ruling()
    if ruling.move == "end":
        raise paused(ruling)
    return ruling.reason
