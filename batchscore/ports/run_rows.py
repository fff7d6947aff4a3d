"""Rows of the ledger as they go over the ports: runs, sweeps, stages, partitions with failures, files."""

from __future__ import annotations

from datetime import datetime

from batchscore.plan import Plan, Reference, Stage
from batchscore.request import Request
from batchscore.shown import Showable, Shown
from batchscore.values import Value


class RunRow(Showable, Value):
    """A run as the ledger holds it. ``state``: running, finished, held, paused, cancelled, interrupted, failed."""

    run_id: str
    name: str
    plan_digest: str
    generation: int
    state: str
    epoch: int
    plan: Plan
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None
    decision: Reference | None = None
    memory: Reference | None = None
    released_at: datetime | None = None
    why: str = ""  # for held and failed
    executor: str = ""  # where the attempts of the newest driver ran, as it describes itself
    held_back_s: float = 0.0  # how long drivers waited for a live source with nothing under way
    worst_lag_s: float | None = None  # of its replicas, as drivers saw it
    driver_gone: bool = False  # it is running, and its driver has ended or let its lease run out: nobody is at it
    undo_begun_at: datetime | None = None  # from then on reviewers see none of its flags that no person touched
    undone_at: datetime | None = None
    undone_by: str = ""
    undone_why: str = ""
    request: Request | None = None  # what a person asks of it now
    deadline_at: datetime | None = None  # by when it is to be over
    expected_at: datetime | None = None  # when it will be, as its driver last thought
    late_since: datetime | None = None  # since when that is too late; None: it is not
    n_requests: int = 0  # so far: the number of the newest, which the next one is compared with

    def shown(self) -> Shown:
        """How it stands."""
        moments = {
            "opened": self.created_at, "finished": self.finished_at, "released": self.released_at, "undone": self.undone_at,
        }  # fmt: skip
        as_ofs = self.plan.spec.as_ofs()
        facts = [
            ("state", self.stands + (f": {self.why}" if self.why else "")),
            ("as of", f"{as_ofs[0]:%Y-%m-%d %H:%M} … {as_ofs[-1]:%Y-%m-%d %H:%M} UTC ({len(as_ofs)})"),
            ("bundles", ", ".join(self.plan.bundle_names().values())),
            ("queue", self.plan.spec.policy.queue),
            *((name, f"{at:%Y-%m-%d %H:%M:%S} UTC") for name, at in moments.items() if at is not None),
            ("plan", self.plan_digest),
            ("ran on", self.executor or "unknown"),
        ]
        return Shown(f"run {self.run_id} of {self.name}", facts)

    @property
    def stands(self) -> str:
        """The state in words: of a run that nobody drives, or that rests, it would be no use to say that it is running."""
        if self.driver_gone:
            return "driver gone"
        return self.request.stands if self.request is not None and self.state in {"running", "interrupted"} else self.state

    @property
    def failed_on_input(self) -> bool:
        """Whether an input ended the run (``why`` begins with its code, BS-2xx): mended, it is another input and another plan."""
        return self.state == "failed" and self.why.startswith("BS-2")


class SweepRow(Value):
    """A sweep that was begun: its as-of, its plan, and a run of that plan (none before a driver opened it)."""

    as_of: datetime
    plan_digest: str
    run_id: str | None
    state: str | None
    released_at: datetime | None


class StageRow(Value):
    """Progress of one stage: the same numbers in every command.

    ``rows_per_s``: the pace of the newest driver that committed anything. What an earlier run had done, and hours in which nobody
    drove, are not in it. None as long as that is not known.
    """

    stage: Stage
    n_partitions: int
    n_committed: int
    n_quarantined: int
    n_rows: int
    n_rows_committed: int
    started_at: datetime | None
    updated_at: datetime | None
    rows_per_s: float | None

    @property
    def is_over(self) -> bool:
        """Whether no partition is left to do."""
        return self.n_committed + self.n_quarantined >= self.n_partitions

    @property
    def eta_s(self) -> float | None:
        """Seconds until the last row at that pace; None where there is no pace."""
        return (self.n_rows - self.n_rows_committed) / self.rows_per_s if self.rows_per_s else None


class QuarantinedRow(Value):
    """A partition set aside, and why."""

    stage: Stage
    number: int
    reason: str
    message: str


class FailureRow(Value):
    """A partition at which attempts failed or workers were lost, with what the last of them said; ``state`` as it stands now."""

    stage: Stage
    number: int
    state: str
    n_failures: int
    n_suspicions: int
    reason: str
    message: str


class HeldOutput(Value):
    """A file that a run refers to, as the table of files holds it."""

    path: str
    sha256: str
    n_bytes: int
