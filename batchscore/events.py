"""What happens during a run, as values. Observers turn them into progress bars, logs and metrics; nothing else does.

Events carry numbers and names of stages and partitions, never an account id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Root; ``run_id`` says whose."""

    run_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOpened(Event):
    """A run was created or taken over."""

    epoch: int
    resumed: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class StageStarted(Event):
    """A stage's partitions are laid out; ``n_done`` of them were committed before or reused."""

    stage: str
    n_partitions: int
    n_rows: int
    n_done: int
    n_rows_done: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionCommitted(Event):
    """A receipt stands in the ledger."""

    stage: str
    number: int
    n_rows: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionAlerted(Event):
    """An attempt put something right by itself that a person should know of (`errors.ALERTS`)."""

    stage: str
    number: int
    alert: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionFailed(Event):
    """An attempt failed or its worker was lost; ``quarantined`` says that it was the last."""

    stage: str
    number: int
    reason: str
    quarantined: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class StageFinished(Event):
    """Every partition of the stage is committed or quarantined."""

    stage: str
    n_quarantined: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class InputJudged(Event):
    """The gate has looked at the days of input: ``n_days`` of them, ``n_new`` too young a table's to compare.

    ``n_held``: findings that hold the run; ``n_approved``: those that a person approved. ``warnings``: of tables gone silent,
    where the plan did not tell.
    """

    n_days: int
    n_new: int
    n_held: int
    n_approved: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class DecisionRecorded(Event):
    """decide has run, once for this run."""

    n_selected: int
    n_to_release: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Proven(Event):
    """Every account is accounted for (or not)."""

    closes: bool
    n_as_ofs: int


NOTHING_TO_COMPARE: Final = "the guard has no earlier run of the spec to compare with, and goes by fixed limits alone"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleaseJudged(Event):
    """The guard has looked at the flags to be released, beside ``n_earlier`` runs. ``n_held``: findings that hold the run."""

    n_earlier: int
    n_held: int

    @property
    def warning(self) -> str:
        """What a person should know of it, empty where there is nothing."""
        return "" if self.n_earlier else NOTHING_TO_COMPARE


@dataclass(frozen=True, kw_only=True, slots=True)
class Released(Event):
    """The run's flags are before the reviewers."""

    n_flags: int
    n_overtaken: int
    n_evidence: int = 0  # of these: added to flags that stand
    n_decided_kept: int = 0  # of these, too: a person had decided on the account, and that stays
    n_instead: int = 0  # of n_flags, beyond the budget: they were to add to flags that were withdrawn since
    n_suppressed: int = 0  # kept back: a suppression came since the run decided


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting(Event):
    """Nothing can go on until somebody acts; ``reason`` says why, and is empty once it goes on."""

    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadlineJudged(Event):
    """The run is expected to be over ``late_s`` after its deadline; 0: after all it is not. Both moments in ISO 8601, UTC."""

    deadline: str
    expected: str
    late_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Stopping(Event):
    """A stop was asked for; what is in flight is finished first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StallFound(Event):
    """Nothing moved for the stall limit: what was found, what was ``done``, and the file with the cluster's own story, if any."""

    seconds: float
    found: str
    done: str
    story: str
