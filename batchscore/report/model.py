"""What a report says: one value, printed as JSON as it is, and drawn as a page by `page`. No account id stands in it.

Times are aware UTC, ``*_s`` and ``seconds`` are seconds. What an unfinished run has no answer to yet is None or empty, and what
could not be read is named in ``gaps``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from batchscore.acceptance import Accepted
from batchscore.hold import HoldRow
from batchscore.ports import FailureRow
from batchscore.report.histogram import EDGES, Counts
from batchscore.report.limits import Budget
from batchscore.report.proof import Proof
from batchscore.values import Value

ProofState = Literal["closes", "does not close", "not yet", "not readable"]


class RunFacts(Value):
    """Which run, and how it stands."""

    run_id: str
    name: str
    state: str
    why: str
    queue: str
    release: Literal["none", "latest"]
    as_ofs: tuple[datetime, ...]
    opened_at: datetime
    finished_at: datetime | None
    released_at: datetime | None
    undo_begun_at: datetime | None = None  # without ``undone_at``: one that was cut, and is to be repeated
    undone_at: datetime | None = None
    generation: int
    n_drivers: int  # how many drivers had it, one after the other
    held_back_s: float = 0.0  # spent waiting for a live source: by drivers with nothing under way, and by attempts, added up
    worst_lag_s: float | None = None  # of the source's replicas, while it was read
    deadline_at: datetime | None = None
    expected_at: datetime | None = None  # when its driver last expected it to be over
    late_since: datetime | None = None  # since when that is after its deadline


class StageReport(Value):
    """One stage: the plan's estimate beside what was done.

    ``rows_done``: accounts frozen, events rolled up, scores written or refused, flags explained; of committed partitions.
    ``seconds``: from its layout to its last commit, pauses of a resumed run among them. ``attempt_s``: seconds of attempts
    by part, summed over workers, without partitions that were reused.
    """

    stage: str
    does: str
    rows_planned: int | None
    rows_done: int | None
    partitions_planned: int | None = None
    n_partitions: int | None = None
    n_committed: int = 0
    n_reused: int = 0
    n_quarantined: int = 0
    seconds: float | None = None
    attempt_s: dict[str, float] = Field(default_factory=dict)


class AsOfHistogram(Value):
    """How many scores of one as-of lie in each bin; the bins are `Report.edges`'."""

    as_of: datetime
    counts: Counts


class DriftLine(Value):
    """Scores of one as-of against those of another run's; ``psi`` is None where either has none."""

    as_of: datetime
    against_as_of: datetime
    psi: float | None


class DateCoverage(Value):
    """How far the data of an as-of reach, and what its leak guard made again.

    ``tables``: events table → share of the longest window that its data reach back over. ``n_guarded``: accounts whose features
    were made again with everything later poisoned, and were the same bits; a run in which one differs ends.
    """

    as_of: datetime
    tables: dict[str, float]
    n_guarded: int


class Drift(Value):
    """Against the last finished run of the same spec name. ``lines``: as-ofs both have, and the latest of each."""

    against_run: str
    latest: DriftLine
    against_counts: Counts  # of `latest`
    lines: tuple[DriftLine, ...]


class BundleReport(Value):
    """What one bundle made of the features. A ``shadow`` flags nothing.

    ``n_scores``, ``n_rejected``: account × as-of, of committed partitions. ``n_made`` of them were made by attempts of this run,
    in ``own_s`` seconds that would not have gone by without this bundle (its contract, its trees, its files): its marginal cost.
    ``histograms`` and ``drift``: of a shadow; those of the bundle that flags are the report's own. ``psi``: a shadow's scores
    against those that flags come from, at the latest as-of that has both.
    """

    name: str
    digest: str
    shadow: bool
    n_scores: int
    n_rejected: int
    n_quarantined: int  # partitions
    n_made: int
    own_s: float
    proof_state: ProofState
    histograms: tuple[AsOfHistogram, ...] = ()
    psi: float | None = None
    drift: Drift | None = None


class ReasonCount(Value):
    """A reason code: flags for which it speaks, and those for which it speaks loudest. ``sentence`` has … for the value."""

    code: str
    sentence: str
    n_flags: int
    n_first: int


class DateFlags(Value):
    """The flags of one as-of. ``reasons``: the commonest few."""

    as_of: datetime
    n_selected: int
    n_to_release: int
    reasons: tuple[ReasonCount, ...]


class SegmentFlags(Value):
    """The flags of one segment over all as-ofs; None: accounts in no segment."""

    segment: str | None
    n_selected: int
    n_to_release: int
    reasons: tuple[ReasonCount, ...]


class Segments(Value):
    """Flags by the column that the spec names. The largest few segments; the others are counted together.

    ``withheld``: most flags have a segment of their own, so the column names accounts rather than groups: nothing is shown.
    """

    column: str
    shown: tuple[SegmentFlags, ...]
    n_others: int = 0
    n_selected_in_others: int = 0
    withheld: bool = False


class Flags(Value):
    """What decide selected, what was explained, and what became of the release."""

    n_selected: int
    n_to_release: int
    n_explained: int
    n_released: int
    n_overtaken: int
    n_decided_kept: int = 0  # of these: a person had decided on evidence as new, and that stays
    n_evidence: int = 0  # added to flags of earlier runs that stand
    n_instead: int = 0  # opened beyond the budget: they were to add to flags that were withdrawn since
    n_suppressed: int = 0  # kept back: a suppression came since the run decided
    n_withdrawn: int = 0  # by an undo
    n_reserve: int = 0  # ranked below the flags, for `batchscore release`
    withheld: dict[str, int] = Field(default_factory=dict)  # why → accounts that would have been flagged
    dates: tuple[DateFlags, ...]
    reasons: tuple[ReasonCount, ...]
    segments: Segments | None


class Rejects(Value):
    """Rows set aside under one code: of an input, or (for score) account × as-of."""

    stage: str
    code: str
    meaning: str
    n: int


class Alerts(Value):
    """Something attempts put right by themselves, and at how many partitions."""

    stage: str
    code: str
    meaning: str
    n_partitions: int


class PartitionTime(Value):
    """A partition that took long: seconds by part."""

    stage: str
    number: int
    n_rows: int
    seconds: float
    parts: dict[str, float]


class Report(Value):
    """All of it."""

    run: RunFacts
    stages: tuple[StageReport, ...]
    bundles: tuple[BundleReport, ...]  # the one that flags first
    proof_state: ProofState
    proof: Proof | None
    edges: tuple[float, ...] = EDGES
    threshold: float | None
    budget: int | None
    histograms: tuple[AsOfHistogram, ...]
    warnings: tuple[str, ...] = ()  # as-ofs that were not over, tables that ended long before, days approved before, …
    budgets: tuple[Budget, ...] = ()  # of the last as-of: what was set aside, beside what the spec's limits allow
    holds: tuple[HoldRow, ...] = ()  # what the run was held for, and who approved it
    accepted: tuple[Accepted, ...] = ()  # other versions of libraries than the run, or the approved plan, has pinned
    coverage: tuple[DateCoverage, ...] = ()  # empty before scores are laid out
    coverage_floor: float | None = None  # below it an account is unscoreable
    drift: Drift | None
    flags: Flags | None
    rejects: tuple[Rejects, ...]
    alerts: tuple[Alerts, ...]
    slowest: tuple[PartitionTime, ...]
    failures: tuple[FailureRow, ...]
    environment: dict[str, str]
    digests: dict[str, str]
    gaps: tuple[str, ...]
    next: tuple[str, ...]
