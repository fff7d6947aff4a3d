"""What each command prints with ``--json``: one model a command. The table `OUTPUTS` is the whole contract.

`batchscore schema COMMAND` prints the JSON Schema of a model. On an error the command prints a `Failure` on stdout in its
place, the same words as ever on stderr, and ends with the same exit code.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Final, Self

from pydantic import BaseModel

from batchscore.acceptance import Accepted
from batchscore.certificates import Certificates
from batchscore.desk import QueueEvent, Reviewed
from batchscore.errors import BatchscoreError
from batchscore.features.sentences import ExplainedFeatureSet, Sampled
from batchscore.hold import HoldRow
from batchscore.init.started import Started
from batchscore.models.bundle_shown import BundleDiff, BundleShown, BundlesShown, BundleVerified
from batchscore.operations.control import Controlled
from batchscore.operations.doctor.finding import Diagnosis
from batchscore.operations.quality import QualityShown, ThresholdShown
from batchscore.operations.rejects import Rejected
from batchscore.operations.release import ReserveShown
from batchscore.operations.retry import Quarantined, Retry
from batchscore.operations.sweep import Sweep
from batchscore.operations.verified import Verified
from batchscore.plan import InputFile, Plan, Reference, StageEstimate
from batchscore.ports import QuarantinedRow, RunRow, StageRow, Suppression, Undo
from batchscore.report.comparison import Comparison
from batchscore.report.difference import RunDifference
from batchscore.report.explanation import Explanation
from batchscore.report.model import Report
from batchscore.report.proof import Proof
from batchscore.request import Request
from batchscore.review.deciding import Imported
from batchscore.spec import RunSpec
from batchscore.training.built import BuiltFrame
from batchscore.values import Value

if TYPE_CHECKING:
    from batchscore.errors import Problem


class ProblemSaid(Value):
    """One mistake among several: where it stands, what it is, what mends it."""

    where: str
    what: str
    remedy: str

    @classmethod
    def of(cls, problem: Problem) -> Self:
        """As it was raised."""
        return cls(where=problem.where, what=problem.what, remedy=problem.remedy)


class ErrorSaid(Value):
    """An error: ``code`` (BS-NNN) and ``reason`` are stable; both are empty for a mistake in the command line or a bug."""

    code: str
    reason: str
    what: str
    where: str
    remedy: str
    problems: tuple[ProblemSaid, ...] = ()
    exit_code: int


class Failure(Value):
    """What any command prints with --json when it cannot do what it was asked."""

    error: ErrorSaid

    @classmethod
    def of(cls, error: BatchscoreError) -> Self:
        """The error as it stands on stderr, in parts."""
        said = ErrorSaid(
            code=error.code,
            reason=error.reason,
            what=error.what,
            where=error.where,
            remedy=error.remedy,
            problems=tuple(map(ProblemSaid.of, error.problems)),
            exit_code=error.exit_code,
        )
        return cls(error=said)

    @classmethod
    def without_code(cls, what: str, *, exit_code: int) -> Self:
        """A mistake in the command line, an interruption, or a bug."""
        return cls(error=ErrorSaid(code="", reason="", what=what, where="", remedy="", exit_code=exit_code))


class FeaturesChecked(Value):
    """features check: nothing is wrong; how many features there are, and the feature set's digest."""

    feature_set: str
    n_features: int
    digest: str


class Checked(Value):
    """check: nothing is wrong; the digest of the plan that `run` would walk, where the spec says its as-ofs."""

    spec: str
    plan_digest: str | None
    warnings: tuple[str, ...] = ()


class PlanShown(Value):
    """plan: all of it but the text of the feature set."""

    digest: str
    spec: RunSpec
    pinned: dict[str, str]
    bundles: tuple[Reference, ...]
    inputs: dict[str, tuple[InputFile, ...]]
    stages: tuple[StageEstimate, ...]
    observed: dict[str, str | int]
    passed_over: tuple[str, ...]
    incomplete: dict[str, tuple[date, ...]]
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, plan: Plan) -> Self:
        """What stands in the plan."""
        return cls(
            digest=plan.digest,
            spec=plan.spec,
            pinned=plan.pinned,
            bundles=plan.bundles,
            inputs=plan.inputs,
            stages=plan.stages,
            observed=plan.observed,
            passed_over=plan.passed_over,
            incomplete=plan.incomplete,
            warnings=plan.warnings,
        )


class RunShown(Value):
    """A run's row without its plan.

    ``why``: the reason it waits, was held or failed; ``driver_gone``: nobody is at it; ``held_back_s``: for a live source;
    ``request``: what a person asks of it now, and whether its driver has seen and met it; ``stands``: the state in words.
    ``expected_at``: when its driver expects it to be over; ``late_since``: since when that is after its deadline.
    """

    run_id: str
    name: str
    plan_digest: str
    generation: int
    state: str
    stands: str
    driver_gone: bool
    epoch: int
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    released_at: datetime | None
    undo_begun_at: datetime | None
    undone_at: datetime | None
    why: str
    held_back_s: float
    worst_lag_s: float | None
    request: Request | None
    deadline_at: datetime | None
    expected_at: datetime | None
    late_since: datetime | None

    @classmethod
    def of(cls, row: RunRow) -> Self:
        """What stands in the row."""
        return cls(**{name: getattr(row, name) for name in cls.model_fields})


class RunEnded(Value):
    """run, resume, demo: how the run stands, and what was set aside."""

    run: RunShown
    store: str
    quarantined: tuple[QuarantinedRow, ...]
    warnings: tuple[str, ...] = ()


class RunsShown(Value):
    """status: the runs of a store, the newest first."""

    runs: tuple[RunShown, ...]


class RunStatus(Value):
    """status RUN, and each line of watch RUN. ``holds``: what it was held for, the last of them while its state is held.

    ``accepted``: other versions of libraries than were planned or approved. ``proof``: of a finished run, in status alone.
    """

    run: RunShown
    stages: tuple[StageRow, ...]
    quarantined: tuple[QuarantinedRow, ...]
    holds: tuple[HoldRow, ...]
    accepted: tuple[Accepted, ...] = ()
    proof: Proof | None = None


class QueueShown(Value):
    """queue, queue list: flags of released runs, best first; queue claim: those that were claimed."""

    flags: tuple[Reviewed, ...]


class StoryShown(Value):
    """queue show, queue decide: every flag of an account in a queue, and what happened to them, in order."""

    flags: tuple[Reviewed, ...]
    events: tuple[QueueEvent, ...]


class ClaimsReturned(Value):
    """queue release-claim: the accounts whose flags are free again."""

    accounts: tuple[int | str, ...]


class Expired(Value):
    """queue expire: how many flags expired, or would."""

    queue: str
    n: int
    applied: bool


class EventsShown(Value):
    """queue events: what changed, in order; ``last`` is the cursor to ask on with."""

    events: tuple[QueueEvent, ...]
    last: int


class SuppressionsShown(Value):
    """suppress list: what holds in a queue, or ever did."""

    queue: str
    suppressions: tuple[Suppression, ...]


class Unsuppressed(Value):
    """suppress remove: how many ended."""

    queue: str
    n: int


class Cleaned(Value):
    """clean: files no run refers to; ``deleted`` says whether they are gone now."""

    deleted: bool
    paths: tuple[str, ...]


class Exported(Value):
    """rejects, queue export: the file that was written, and how many rows it holds."""

    path: str
    n_rows: int


class Upgraded(Value):
    """db upgrade: the tables as they are now; with --sql ``script`` is what would make them so, and nothing was changed."""

    database: str
    account_id: str
    version: str | None = None
    script: str | None = None


class Granted(Value):
    """db grants: role → the statements that give its account what it needs."""

    database: str
    grants: dict[str, tuple[str, ...]]


class ErrorHelp(Value):
    """One error of the catalogue, explained."""

    code: str
    reason: str
    meaning: str
    causes: str
    remedy: str
    exits: str


class HelpShown(Value):
    """help: the errors asked for; all of them when none was named."""

    errors: tuple[ErrorHelp, ...]


class Script(Value):
    """completion: the shell's script, and the line that installs it."""

    shell: str
    install: str
    script: str


OUTPUTS: Final[dict[str, type[BaseModel]]] = {
    "demo": RunEnded,
    "init": Started,
    "doctor": Diagnosis,
    "check": Checked,
    "features check": FeaturesChecked,
    "features show": ExplainedFeatureSet,
    "features sample": Sampled,
    "features build": BuiltFrame,
    "plan": PlanShown,
    "run": RunEnded,
    "resume": RunEnded,
    "backfill": RunEnded,
    "sweep": Sweep,
    "approve": HoldRow,
    "pause": Controlled,
    "continue": Controlled,
    "cancel": Controlled,
    "status": RunsShown,
    "status RUN": RunStatus,
    "status RUN --rejected": Rejected,
    "status RUN --quarantined": Quarantined,
    "rejects": Exported,
    "retry": Retry,
    "undo": Undo,
    "verify": Verified,
    "release": ReserveShown,
    "quality": QualityShown,
    "threshold": ThresholdShown,
    "watch": RunStatus,
    "queue": QueueShown,
    "queue list": QueueShown,
    "queue show": StoryShown,
    "queue claim": QueueShown,
    "queue release-claim": ClaimsReturned,
    "queue decide": StoryShown,
    "queue import": Imported,
    "queue export": Exported,
    "queue expire": Expired,
    "queue events": EventsShown,
    "suppress add": Suppression,
    "suppress list": SuppressionsShown,
    "suppress remove": Unsuppressed,
    "report": Report,
    "report diff": RunDifference,
    "explain": Explanation,
    "compare": Comparison,
    "bundle pack": BundleShown,
    "bundle show": BundlesShown,
    "bundle verify": BundleVerified,
    "bundle diff": BundleDiff,
    "clean": Cleaned,
    "db upgrade": Upgraded,
    "db grants": Granted,
    "cluster certs": Certificates,
    "help": HelpShown,
    "completion": Script,
    "error": Failure,
}
