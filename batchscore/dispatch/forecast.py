"""When a run will be over, as far as its driver can tell, and whether that is later than its deadline. It ends nothing.

What is left of the stage under way takes as long as its pace so far says; stages to come take what they took in the last finished
run of the spec. Without one they count nothing: then the run ends no earlier than is told.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from batchscore.events import DeadlineJudged, Event, PartitionCommitted, StageFinished, StageStarted
from batchscore.plan import Stage
from batchscore.ports import Observer, RunHandle, RunRow, Store, StoreReader

TOLD_AFTER_S: Final = 5.0  # an ETA that does not last so long is of a stage that has just begun
NOTED_EVERY_S: Final = 10.0
DRIVERS_OWN: Final = "driver"  # what it does between and after stages, such as release


class Forecast:
    """Hears a run's events on their way to ``observer``, and judges now and then."""

    def __init__(
        self, handle: RunHandle, store: Store, observer: Observer, deadline_at: datetime | None, usual_s: Mapping[str, float]
    ) -> None:
        """``usual_s``: seconds of each stage, and of `DRIVERS_OWN`, in the run before. Without a deadline nothing is judged."""
        self._handle = handle
        self._store = store
        self._observer = observer
        self.deadline_at = deadline_at
        self._usual_s = usual_s
        self._stage = ""
        self._to_come = [stage.value for stage in Stage]
        self._began = time.monotonic()
        self._n_rows, self._n_left, self._n_done = 0, 0, 0
        self._told_late_s = 0.0
        self._doubted_at: float | None = None
        self._noted_at = float("-inf")

    def __call__(self, event: Event) -> None:
        """Pass it on, and keep what tells the pace."""
        self._observer(event)
        match event:
            case StageStarted():
                self._stage, self._began = event.stage, time.monotonic()
                self._to_come = self._to_come[self._to_come.index(event.stage) + 1 :] if event.stage in self._to_come else []
                self._n_rows, self._n_left, self._n_done = event.n_rows, event.n_rows - event.n_rows_done, 0
            case PartitionCommitted() if event.stage == self._stage:
                self._n_done += event.n_rows
                self._n_left -= event.n_rows
            case StageFinished():
                self._stage, self._n_left = "", 0

    def left_s(self) -> float:
        """Seconds that the run has still to go."""
        went_s = time.monotonic() - self._began
        later_s = sum(self._usual_s.get(stage, 0.0) for stage in (*self._to_come, DRIVERS_OWN))
        if not self._stage:
            return later_s
        if self._n_done:
            return later_s + max(0, self._n_left) * went_s / self._n_done
        share = self._n_left / self._n_rows if self._n_rows else 0.0
        return later_s + max(0.0, share * self._usual_s.get(self._stage, 0.0) - went_s)

    def look(self) -> None:
        """Judge, and tell in event and ledger where the judgement is another one. Raises Fenced."""
        if self.deadline_at is None:
            return
        expected_at = datetime.now(UTC) + timedelta(seconds=self.left_s())
        late_s = max(0.0, (expected_at - self.deadline_at).total_seconds())
        now = time.monotonic()
        if self._is_news(late_s):
            self._doubted_at = now if self._doubted_at is None else self._doubted_at
            if now - self._doubted_at >= TOLD_AFTER_S:
                self._told_late_s, self._doubted_at, self._noted_at = late_s, None, now
                self._store.note_expected(self._handle, expected_at, late=late_s > 0)
                self._observer(
                    DeadlineJudged(
                        run_id=self._handle.run_id,
                        deadline=_iso(self.deadline_at),
                        expected=_iso(expected_at),
                        late_s=round(late_s, 1),
                    )
                )
            return
        self._doubted_at = None
        if now - self._noted_at >= NOTED_EVERY_S:
            self._noted_at = now
            self._store.note_expected(self._handle, expected_at, late=late_s > 0)

    def _is_news(self, late_s: float) -> bool:
        """Late now and not before, or the reverse; or twice as late as was told, by ten minutes at least."""
        told = self._told_late_s
        return (late_s > 0) != (told > 0) or (told > 0 and late_s > max(2 * told, told + 600))


def usual_seconds(before: RunRow | None, reader: StoreReader) -> dict[str, float]:
    """How long each stage of the run before took, from its layout to its last commit, and its driver after the last of them."""
    if before is None:
        return {}
    rows = [row for row in reader.stages(before.run_id) if row.started_at is not None and row.updated_at is not None]
    found = {row.stage.value: _took(row.started_at, row.updated_at) for row in rows if row.started_at and row.updated_at}
    ended = max((row.updated_at for row in rows if row.updated_at), default=None)
    if ended is not None and before.finished_at is not None:
        found[DRIVERS_OWN] = _took(ended, before.finished_at)
    return found


def _took(start: datetime, end: datetime) -> float:
    """Seconds; none where a clock was set back between."""
    return max(0.0, (end - start).total_seconds())


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="seconds")
