"""Progress of a run for people: a bar with rows/s and ETA on a terminal, one line now and then anywhere else.

The figures follow the ledger (events of committed partitions), so they never go back.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from batchscore.errors import alert_meaning
from batchscore.events import (
    DeadlineJudged,
    DecisionRecorded,
    Event,
    InputJudged,
    PartitionAlerted,
    PartitionCommitted,
    PartitionFailed,
    Proven,
    Released,
    ReleaseJudged,
    RunOpened,
    StageFinished,
    StageStarted,
    StallFound,
    Stopping,
    Waiting,
)
from batchscore.observe.text import plain

LINE_EVERY_S: Final = 5.0


@dataclass(slots=True)
class _StageProgress:
    """Rows done and to do of the stage under way. Rates count only what this driver did."""

    stage: str
    started_at: float
    n_rows: int
    n_rows_done: int
    n_rows_before: int
    last_line_at: float

    def rate(self) -> float:
        """Rows a second since this driver took up the stage."""
        return (self.n_rows_done - self.n_rows_before) / max(1e-9, time.monotonic() - self.started_at)

    def eta_s(self) -> float | None:
        """Seconds still to go at that rate; None before anything was done."""
        rate = self.rate()
        return (self.n_rows - self.n_rows_done) / rate if rate > 0 else None


class ProgressObserver:
    """Tells a run's events on ``console``. A context manager: the bar is gone when the block is left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description:>8}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%  {task.fields[rate]}  ETA"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("", visible=False, rate="")
        self._stage: _StageProgress | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._console.is_terminal:  # elsewhere it was never started, and stopping it would leave an empty line
            self._bar.stop()

    def __call__(self, event: Event) -> None:  # noqa: C901, PLR0912 (one case, one event)
        """Tell one event."""
        match event:
            case RunOpened():
                self._say(f"run {event.run_id} " + (f"resumed, epoch {event.epoch}" if event.resumed else "opened"))
            case StageStarted():
                self._start(event)
            case PartitionCommitted():
                self._advance(event)
            case PartitionAlerted():
                self._say(f"  {event.stage} {event.number}: {alert_meaning(event.alert)}")
            case PartitionFailed():
                end = "quarantined" if event.quarantined else "will be tried again"
                self._say(f"  {event.stage} {event.number}: {event.reason}, {end}")
            case StageFinished():
                self._finish(event)
            case InputJudged():
                self._tell_input(event)
            case DecisionRecorded():
                self._say(f"  decide  {event.n_selected:,} flags selected, {event.n_to_release:,} of them to release")
            case Proven():
                closes = "closes: every account accounted for once" if event.closes else "DOES NOT CLOSE"
                self._say(f"   prove  {event.n_as_ofs} as-of dates, {closes}")
            case ReleaseJudged() if event.warning:
                self._say(f"warning: {event.warning}")
            case Released():
                self._say(f" release  {_released(event)}")
            case Waiting():
                self._say(f"waiting: {event.reason}" if event.reason else "going on")
            case StallFound():
                story = f"; the cluster's story: {event.story}" if event.story else ""
                self._say(f"stalled: {event.found}; {event.done}{story}")
            case DeadlineJudged():
                self._say(_deadline(event))
            case Stopping():
                self._say("stopping: what is in flight is finished and committed first")

    def _start(self, event: StageStarted) -> None:
        now = time.monotonic()
        self._stage = _StageProgress(event.stage, now, event.n_rows, event.n_rows_done, event.n_rows_done, now)
        if event.n_done:
            self._say(f"{event.stage:>8}  {event.n_done} of {event.n_partitions} partitions were done before")
        self._bar.reset(
            self._task, description=event.stage, total=max(1, event.n_rows), completed=event.n_rows_done, visible=True, rate=""
        )

    def _advance(self, event: PartitionCommitted) -> None:
        stage = self._stage
        if stage is None or stage.stage != event.stage:  # a shadow's, made beside score: it is told in its own stage
            return
        stage.n_rows_done += event.n_rows
        rate = f"{stage.rate():,.0f} rows/s"
        self._bar.update(self._task, completed=stage.n_rows_done, rate=rate)
        now = time.monotonic()
        if not self._console.is_terminal and now - stage.last_line_at >= LINE_EVERY_S:
            stage.last_line_at = now
            eta = stage.eta_s()
            left = f", ETA {eta:.0f} s" if eta is not None else ""
            self._say(f"{event.stage:>8}  {stage.n_rows_done:,} of {stage.n_rows:,} rows, {rate}{left}")

    def _finish(self, event: StageFinished) -> None:
        stage, self._stage = self._stage, None
        self._bar.update(self._task, visible=False)
        if stage is not None:
            aside = f", {event.n_quarantined} quarantined" if event.n_quarantined else ""
            new = stage.n_rows_done - stage.n_rows_before
            rate = f" ({new / event.seconds:,.0f} rows/s)" if new and event.seconds > 0 else ""
            self._say(f"{event.stage:>8}  {stage.n_rows_done:,} rows in {event.seconds:.1f} s{rate}{aside}")

    def _tell_input(self, event: InputJudged) -> None:
        for warning in event.warnings:
            self._say(f"warning: {warning}")
        if event.n_days:
            parts = ((event.n_held, "not as usual"), (event.n_approved, "approved"), (event.n_new, "too new to compare"))
            said = ", ".join(f"{n:,} {what}" for n, what in parts if n)
            self._say(f"    gate  {event.n_days:,} days of input judged" + (f"; {said}" if said else ""))

    def _say(self, line: str) -> None:
        self._console.print(plain(line), highlight=False, markup=False, soft_wrap=True)


def _deadline(event: DeadlineJudged) -> str:
    minutes = f"{event.late_s / 60:,.0f} min after its deadline of {event.deadline}" if event.late_s else "in time after all"
    return f"{'LATE: ' if event.late_s else ''}expected to be over at {event.expected}, {minutes}"


def _released(event: Released) -> str:
    more = (
        (event.n_decided_kept, "left as a person decided"),
        (event.n_instead, "beyond the budget, in the place of flags withdrawn since"),
        (event.n_suppressed, "suppressed since"),
    )
    return "; ".join([_before(event), *(f"{n:,} {what}" for n, what in more if n)])


def _before(event: Released) -> str:
    if n_there := event.n_overtaken - event.n_decided_kept:
        added = f", {event.n_evidence:,} of them with new evidence" if event.n_evidence else ""
        return f"{event.n_flags:,} new flags; {n_there:,} are before the reviewers already{added}"
    return f"{event.n_flags:,} flags before the reviewers"
