"""Values of planning: what will be read, in which stages and partitions, under which pinned digests. No I/O.

A *plan* is what `plan` prints and `run` walks. Its digest covers the pinned parts only. A *partition* is the unit of
reading, scoring, commit and retry; its *work* holds references (paths, digests, ranges), never rows. A partition's
*address* names its output by everything that output depends on, so that equal work is never done twice.
"""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import Field, model_validator

from batchscore.digest import digest_of
from batchscore.shown import Showable, Shown, ShownTable
from batchscore.spec import Gentle, IdCast, RunSpec, SqlSource
from batchscore.values import Value
from batchscore.where import Where, outline_of


class Stage(StrEnum):
    """The stages whose partitions run on workers, in order."""

    FREEZE = "freeze"
    ROLLUP = "rollup"
    MERGE = "merge"
    SCORE = "score"
    RECONSIDER = "reconsider"
    REASONS = "reasons"
    SHADOW = "shadow"  # what score does, by bundles that flag nothing


# Raised by hand when a stage's output changes for equal input; guarded by a golden test. A shadow's output is a score's.
STAGE_FORMAT: Final[dict[Stage, int]] = {
    Stage.FREEZE: 2, Stage.ROLLUP: 3, Stage.MERGE: 1, Stage.SCORE: 4, Stage.RECONSIDER: 1, Stage.REASONS: 2
}  # fmt: skip


# What a pinned part of this beginning is the digest of; its name follows.
FUNCTION: Final = "function "
BUNDLE: Final = "bundle "
SHADOW: Final = "shadow "

# Folders of the store whose files a driver writes, each named by its digest, which a run's row or the work of its partitions
# holds: key indexes; decisions, memory and the accounts to look closer at; feature sets as runs read them.
INDEXES: Final = "indexes"
DECISIONS: Final = "decisions"
FEATURE_SETS: Final = "feature_sets"
NAMED_BY_DIGEST: Final = (INDEXES, DECISIONS, FEATURE_SETS)


class InputFile(Value):
    """One pinned input file, as the plan saw it. ``path`` is relative to ``root``, with ``/``.

    ``footer_sha256`` covers schema, encodings and row counts: what decides how every page is read.
    """

    root: str
    path: str
    n_bytes: int
    mtime_ns: int
    n_rows: int
    footer_sha256: str


class Reference(Value):
    """A file by absolute path and SHA-256: what a worker gets in place of a value."""

    path: str
    sha256: str


# A position in a live table: its key's value, or the values of its key's columns.
KeyBound = int | str | tuple[int | str, ...]


class KeyRange(Value):
    """Account ids from ``low`` (included) to ``high`` (not included); None is open. Never a float."""

    low: int | str | None = None
    high: int | str | None = None


class FreezeParquet(Value):
    """Bring the accounts of some Parquet files into one sorted, checksummed snapshot."""

    kind: Literal["freeze_parquet"] = "freeze_parquet"
    table: str
    feature_set: Reference
    files: tuple[InputFile, ...]
    segment: str | None = None
    groups: tuple[str, ...] = ()


class FreezeSql(Value):
    """Read the accounts of a live table whose keys lie in (low, high] into snapshots; ``high`` None: the table is empty.

    The range without a ``low`` also holds the rows whose key is null.
    """

    kind: Literal["freeze_sql"] = "freeze_sql"
    table: str
    feature_set: Reference
    url: str
    sql_table: str
    key: tuple[str, ...] = ()  # as the source declares it
    id_cast: IdCast | None = None
    where: Where = Field(default=(), exclude_if=lambda where: not where)  # as the source declares it
    low: KeyBound | None = None
    high: KeyBound | None
    opened_for: str  # the run: a live table is never the same input twice
    segment: str | None = None
    groups: tuple[str, ...] = ()


class FreezeEvents(Value):
    """Read the events of a live table whose append keys lie in (low, high] into files; ``high`` None: the table is empty.

    Of a ``closed`` range no row will change or come any more: its files serve every run. An open one is read anew by each.
    """

    kind: Literal["freeze_events"] = "freeze_events"
    table: str
    feature_set: Reference
    source: SqlSource
    low: KeyBound | None = None
    high: KeyBound | None
    closed: bool
    by: str | None = None


class Rollup(Value):
    """Aggregate the events of some Parquet files per account, event grain and known grain; count them by day, and ``by``.

    Of a live table they are those that a freeze left, ``frozen``; there are ``files`` or these.
    """

    kind: Literal["rollup"] = "rollup"
    table: str
    feature_set: Reference
    files: tuple[InputFile, ...] = ()
    frozen: tuple[Reference, ...] = ()
    by: str | None = None


class Merge(Value):
    """Bring the rollups of one closed month, or of one day, into one file. ``rollups``: two or more, of one table."""

    kind: Literal["merge"] = "merge"
    table: str
    feature_set: Reference
    rollups: tuple[Reference, ...]


class Score(Value):
    """Make features and score every account of a key range, for some as-of dates, with one bundle."""

    kind: Literal["score"] = "score"
    feature_set: Reference
    bundle: Reference  # its manifest
    snapshots: Reference  # key index of the accounts
    rollups: dict[str, Reference]  # table → key index
    functions: dict[str, str] = Field(default_factory=dict)  # Python function of a feature → what the plan pinned of it
    keys: KeyRange
    as_ofs: tuple[datetime, ...]
    began: dict[str, tuple[datetime | None, ...]] = Field(default_factory=dict)  # table → when its data begin, as of each as-of
    guarded: datetime | None = None  # the as-of at which features are made again with everything later poisoned

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_releases(cls, held: Any) -> Any:
        """A ledger may hold work from when it was a list of one bundle."""
        if isinstance(held, dict) and "bundles" in held:
            (bundle,) = held["bundles"]
            return {**{name: value for name, value in held.items() if name != "bundles"}, "bundle": bundle}
        return held


class Reconsider(Value):
    """Look closer at accounts of a key range that were cleared: reasons now, and the features ``names`` then and now.

    ``candidates``: account_id, as_of and margin of each, and ``then``: the as-of that the decision on it spoke of.
    """

    kind: Literal["reconsider"] = "reconsider"
    score: Score
    candidates: Reference
    names: tuple[str, ...]


class Reasons(Value):
    """Make the features of the flags in a key range again, check their margins, and explain them."""

    kind: Literal["reasons"] = "reasons"
    score: Score
    decision: Reference


Work = Annotated[
    FreezeParquet | FreezeSql | FreezeEvents | Rollup | Merge | Score | Reconsider | Reasons, Field(discriminator="kind")
]
_STAGE_OF: Final = {
    "freeze_parquet": Stage.FREEZE,
    "freeze_sql": Stage.FREEZE,
    "freeze_events": Stage.FREEZE,
    "rollup": Stage.ROLLUP,
    "merge": Stage.MERGE,
    "score": Stage.SCORE,
    "reconsider": Stage.RECONSIDER,
    "reasons": Stage.REASONS,
}


class Partition(Value):
    """One unit of work of one stage. ``n_rows`` is an estimate for progress (rows read, or account × as-of)."""

    stage: Stage
    number: int
    n_rows: int
    work: Work
    address: str

    @classmethod
    def of(cls, work: Work, *, number: int, n_rows: int, reads: dict[str, object]) -> Partition:
        """A partition whose address follows from what its stage ``reads`` (digests and parameters), and nothing else.

        ``work`` may name more than the output depends on (a whole feature set, where a rollup reads two columns).
        """
        stage = _STAGE_OF[work.kind]
        named = {"reads": reads, "format": STAGE_FORMAT[stage], "kind": work.kind}
        return cls(stage=stage, number=number, n_rows=n_rows, work=work, address=f"{stage}/{digest_of(named)}")


class Task(Value):
    """One attempt to be made: what travels to a worker. ``isolated``: alone, in a child process of the worker.

    ``beside``: partitions that differ from ``partition`` in their bundle alone, scored over the same features.
    """

    run_id: str
    store: str  # folder of the store
    partition: Partition
    beside: tuple[Partition, ...] = ()
    isolated: bool = False
    gentle: Gentle = Gentle()  # how a live source is read: as the plan at hand says, which may be newer than the layout


def rows_of(table: str, *, estimated: bool = False) -> str:
    """The name under which a plan's ``observed`` holds how many rows a live table has, or is believed to have."""
    return f"rows of {table}{' (estimate)' if estimated else ''}"


class StageEstimate(Value):
    """What a plan says of one stage; figures are observed, so they are not in the plan's hash."""

    stage: str
    does: str
    n_partitions: int | None = None
    n_rows: int | None = None
    n_bytes: int | None = None


class Plan(Showable, Value):
    """A run, before it runs. `digest` covers ``pinned``, which names the digest of every part; ``observed`` is estimated."""

    spec: RunSpec
    feature_set: str  # frozen as JSON
    bundles: tuple[Reference, ...]  # their manifests; the first flags, the others are shadows
    pinned: dict[str, str]  # part → digest or version, in plain words: "bundle", "input mails", "library xgboost"
    inputs: dict[str, tuple[InputFile, ...]]  # table → its files
    stages: tuple[StageEstimate, ...]
    observed: dict[str, str | int]
    passed_over: tuple[str, ...] = ()  # hidden and temporary files in the input folders that will not be read
    # table → days that the gate judges and that were not complete when the files were listed
    incomplete: dict[str, tuple[date, ...]] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()  # what a person should know of before a run, and what keeps none from running

    @property
    def digest(self) -> str:
        """64 hex; two plans with equal digests give equal scores and flags."""
        return digest_of(self.pinned)

    def n_rows_of(self, table: str) -> int:
        """How many rows a live table had when it was planned, or was believed to have; 0 of any other."""
        return int(self.observed.get(rows_of(table)) or self.observed.get(rows_of(table, estimated=True)) or 0)

    def bundle_names(self) -> dict[str, str]:
        """Digest of each bundle → its name, in the order of ``bundles``."""
        names = {self.pinned[part]: part.partition(" ")[2] for part in self.pinned if part.startswith((BUNDLE, SHADOW))}
        return {bundle.sha256: names[bundle.sha256] for bundle in self.bundles}

    def shown(self) -> Shown:
        """What is asked for, the stages, and what is pinned."""
        spec, as_ofs, policy = self.spec, self.spec.as_ofs(), self.spec.policy
        dates = f"{as_ofs[0]:%Y-%m-%d %H:%M} … {as_ofs[-1]:%Y-%m-%d %H:%M} UTC ({len(as_ofs)})" if as_ofs else "none"
        facts = [
            ("plan", self.digest),
            ("as of", dates),
            ("bundles", ", ".join(self.bundle_names().values())),
            ("queue", policy.queue),
            ("threshold", "none" if policy.threshold is None else f"{policy.threshold:g}"),
            ("budget", "none" if policy.budget is None else f"{policy.budget:,}"),
            ("release", spec.release),
            *((f"rows of {table}", f"where {said}") for table, said in _outlines(spec)),
            *(("warning", warning) for warning in self.warnings),
        ]
        numbers = [[_said(stage.n_partitions), _said(stage.n_rows), _said(stage.n_bytes)] for stage in self.stages]
        rows = [[stage.stage, stage.does, *said] for stage, said in zip(self.stages, numbers, strict=True)]
        stages = ShownTable(("stage", "does", "partitions", "rows", "bytes"), rows)
        pinned = ShownTable(("pinned", "digest or version"), sorted(self.pinned.items()))
        return Shown(f"plan of {spec.name}", facts, (stages, pinned))

    def differences(self, pinned: dict[str, str]) -> tuple[str, ...]:
        """Names of the pinned parts in which this plan and ``pinned`` differ."""
        return tuple(sorted(name for name in self.pinned.keys() | pinned.keys() if self.pinned.get(name) != pinned.get(name)))


def _outlines(spec: RunSpec) -> list[tuple[str, str]]:
    """Of each live table that is filtered: by what columns, and the beginning of the filter's digest."""
    filtered = {table: source.sql.where for table, source in spec.sources.items() if source.sql is not None and source.sql.where}
    return [(table, outline_of(where)) for table, where in sorted(filtered.items())]


def _said(n: int | None) -> str:
    return "–" if n is None else f"{n:,}"
