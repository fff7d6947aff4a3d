"""What people ask of the run, as its driver knows it."""

from __future__ import annotations

from typing import Final

from batchscore.errors import Cancelled
from batchscore.ports import RunHandle, Store
from batchscore.request import Request

LOOK_EVERY_S: Final = 1.0  # seen within two seconds: this, and a database that takes its time


class Requests:
    """Looked at by the thread that keeps the lease, so that a driver busy with one long step still sees and says so."""

    def __init__(self, store: Store, handle: RunHandle) -> None:
        self._store = store
        self._reader = store.reader()
        self._handle = handle
        self._standing: Request | None = None
        self._met = 0  # the number of the last request that was met

    def look(self) -> None:
        """Look once, and say in the run's row that it was seen. Raises Fenced, or what a database that is away does."""
        found = self._reader.requested(self._handle.run_id)
        self._standing = found
        if found is not None and found.seen_at is None:
            self._store.note_request(self._handle, found.number, met=False)

    @property
    def standing(self) -> Request | None:
        """What is asked now; None: nothing, go on."""
        return self._standing

    def meet(self, request: Request) -> None:
        """Nothing is under way: say that it is as was asked.

        Raises:
            Cancelled: ``run_cancelled``.
        """
        if request.number > self._met:
            self._store.note_request(self._handle, request.number, met=True)
            self._met = request.number
        if request.wish == "cancelled":
            raise Cancelled("run_cancelled", f"the run is {request.told}; everything committed is kept")
