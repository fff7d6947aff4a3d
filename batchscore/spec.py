"""What the operator asks for: the run spec. YAML in, one frozen value out, or every mistake at once with its line.

A spec names things (files, a database URL by name, bundles, a feature set); it holds no secret and no result. Paths are
relative to the spec's own folder. Nothing here opens what it names: that is the planner's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from batchscore.document import Mistake, read_document
from batchscore.policy import Policy
from batchscore.values import NAME, ColumnName, Count, Duration, Moment, Number, PositiveDuration, Probability, Value
from batchscore.where import Where

CLOCK: Final = re.compile(r"^([01]\d|2[0-3]):[0-5]\d(:00)?$")
WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MOST_CONNECTIONS: Final = 8  # to one live source, over the whole cluster
MAX_AS_OFS: Final = 3_700  # ten years of days: more is a mistake in `every`


def parse_clock(value: object) -> time:
    """``08:00`` or ``17:30`` on a clock of 24 hours.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, time):
        return value
    if not isinstance(value, str) or CLOCK.match(value) is None:
        msg = f"{value!r} is not a time of day → write it in quotes, such as '08:00'"
        raise ValueError(msg)
    return time.fromisoformat(value)


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        msg = f"{name!r} is not a time zone → write UTC, or a name such as Europe/Berlin"
        raise ValueError(msg) from None
    return name


def _plain_relative(value: str) -> str:
    if "\0" in value or not value.strip():
        msg = "a path must not be empty → name a file or folder"
        raise ValueError(msg)
    return value


Location = Annotated[str, AfterValidator(_plain_relative)]
Seconds = Number
Clock = Annotated[time, BeforeValidator(parse_clock)]
TableName = Annotated[str, Field(min_length=1, max_length=128)]


class ParquetSource(Value):
    """A Parquet file, or a folder of them (flat or hive-partitioned)."""

    path: Location


class OfficeHours(Value):
    """When a source belongs to others: on ``days``, ``from`` until ``to`` (past midnight if earlier) by ``zone``'s clocks."""

    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = Field(default=WEEKDAYS[:5], min_length=1)
    opens: Clock = Field(alias="from")
    closes: Clock = Field(alias="to")
    zone: Annotated[str, AfterValidator(_known_zone)]

    @model_validator(mode="after")
    def _has_a_length(self) -> OfficeHours:
        if self.opens == self.closes:
            msg = "'from' and 'to' are the same time → name two, or use pause_file"
            raise ValueError(msg)
        return self

    def are_at(self, moment: datetime) -> bool:
        """Whether ``moment`` (aware) lies within them."""
        local = moment.astimezone(ZoneInfo(self.zone))
        clock, yesterday = local.time(), (local.weekday() - 1) % len(WEEKDAYS)
        today_is_one, yesterday_was_one = WEEKDAYS[local.weekday()] in self.days, WEEKDAYS[yesterday] in self.days
        if self.opens < self.closes:
            return today_is_one and self.opens <= clock < self.closes
        return (today_is_one and clock >= self.opens) or (yesterday_was_one and clock < self.closes)


class Gentle(Value):
    """How a live source is read without being in anybody's way. No part of what a run is: it changes no score and no flag.

    Reading pauses above ``threads_running`` or ``replica_lag_s``, while the ``pause_file`` exists or the ``pause_table`` holds
    a row, and in ``office_hours``; above ``critical_threads_running`` the run ends, and can be resumed.
    """

    connections: Annotated[Count, Field(ge=4, le=MOST_CONNECTIONS)] = MOST_CONNECTIONS  # at one time, over the whole cluster
    page_s: Annotated[Seconds, Field(ge=0.01, le=5)] = 0.5  # pages grow and shrink towards it
    threads_running: Annotated[Count, Field(ge=1)] = 25
    critical_threads_running: Annotated[Count, Field(ge=1)] = 50
    # Of the source where it is a replica, and of the ``replicas``: names of URLs. To see it takes a right, so it is asked for.
    replica_lag_s: Annotated[Seconds, Field(ge=0)] | None = None
    replicas: tuple[Annotated[str, Field(pattern=NAME)], ...] = ()
    pause_file: Location | None = None
    pause_table: TableName | None = None
    office_hours: OfficeHours | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Gentle:
        if self.critical_threads_running <= self.threads_running:
            msg = "critical_threads_running is not above threads_running → a run must pause before it ends"
            raise ValueError(msg)
        if self.replicas and self.replica_lag_s is None:
            msg = "replicas are named, and no replica_lag_s → say how far behind they may be"
            raise ValueError(msg)
        return self


IdCast = Literal["text", "hex", "uuid"]
SqlColumn = Annotated[str, Field(min_length=1, max_length=64)]


class SqlSource(Value):
    """A table of a live database, reached by the *name* of its URL.

    ``key``: the columns by which a table of MySQL is paged, where that is not the account id: those of its primary key, or of
    another index. Of events it is the key along which the table grows, such as an auto-increment. ``reread``: of events, how long
    after they were known their rows may still change, or come with a key below that of others; what is older is read once for
    all runs. ``id_cast``: what account ids of MySQL become, exactly: ``text``, the digits of an integer; ``hex``, bytes
    as lower-case hex; ``uuid``, BINARY(16) as 8-4-4-4-12 of these. ``where``: which rows are read, by conditions on any columns
    of the table, which need not be features; the others are as if they were not there.
    """

    url: str = Field(pattern=NAME)
    table: TableName
    # Left out of digests where nothing is declared: plans of specs that are older stay what they were.
    key: tuple[SqlColumn, ...] = Field(default=(), exclude_if=lambda key: not key)
    id_cast: IdCast | None = Field(default=None, exclude_if=lambda cast: cast is None)
    reread: Duration | None = Field(default=None, exclude_if=lambda reread: reread is None)
    where: Where = Field(default=(), exclude_if=lambda where: not where)
    gentle: Gentle = Gentle()

    @model_validator(mode="after")
    def _names_columns_once(self) -> SqlSource:
        if len(set(self.key)) != len(self.key):
            msg = "a column of the key is named twice → keep one"
            raise ValueError(msg)
        return self


class Source(Value):
    """Where one table of the feature set comes from: exactly one of Parquet and SQL."""

    parquet: ParquetSource | None = None
    sql: SqlSource | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Source:
        if (self.parquet is None) == (self.sql is None):
            msg = "a source is either parquet or sql → keep one of the two"
            raise ValueError(msg)
        return self


class AsOfRange(Value):
    """As-of dates from ``from`` to ``to``, both included, one per ``every``."""

    first: Moment = Field(alias="from")
    last: Moment = Field(alias="to")
    every: PositiveDuration

    @model_validator(mode="after")
    def _is_forward(self) -> AsOfRange:
        if self.last < self.first:
            msg = "'to' lies before 'from' → exchange them"
            raise ValueError(msg)
        if (self.last - self.first) / self.every > MAX_AS_OFS:
            msg = f"more than {MAX_AS_OFS} as-of dates → make 'every' larger"
            raise ValueError(msg)
        return self

    def moments(self) -> tuple[datetime, ...]:
        """Every as-of of the range, in order."""
        count = int((self.last - self.first) / self.every)
        return tuple(self.first + step * self.every for step in range(count + 1))


_DAY_PARTS: Final = ("%Y", "%m", "%d")


def _day_path(value: str) -> str:
    odd = "%" in re.sub("%[Ymd]", "", value) or "\0" in value
    if odd or not all(part in value for part in _DAY_PARTS) or Path(value).is_absolute() or ".." in Path(value).parts:
        msg = f"{value!r} names no file of each day → write its path below the source, such as day=%Y-%m-%d/_SUCCESS"
        raise ValueError(msg)
    return value


class TableGate(Value):
    """How the days of an events table are judged before a run scores. A day without any row is always a finding.

    ``marker`` or ``lag`` say when a day is complete: once that file is there (``%Y``, ``%m``, ``%d`` are the day's), or so
    long after the day's end. ``factor`` is how many times fewer or more rows than usual a day may have; ``by`` names a
    column of few values, for each of which rows are compared too.
    """

    marker: Annotated[str, AfterValidator(_day_path)] | None = None
    lag: Duration | None = None
    factor: Annotated[Number, Field(gt=1, le=1_000)] | None = None
    by: ColumnName | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> TableGate:
        if self.marker is not None and self.lag is not None:
            msg = "a day is complete by its marker or by its lag → keep one of the two"
            raise ValueError(msg)
        if self.by is not None and self.factor is None:
            msg = "'by' says for whose rows each day is compared → add factor, such as factor: 2"
            raise ValueError(msg)
        return self


class SpecBundle(Value):
    """A bundle that a run scores with. A ``shadow`` is scored beside the one that flags; its scores decide nothing."""

    path: Location
    shadow: bool = False


def _by_path(value: Any) -> Any:
    """A bundle may be its path alone."""
    return {"path": value} if isinstance(value, str) else value


def _moments(value: Any) -> Any:
    """``as_of`` may be one date, a list, or a range."""
    if isinstance(value, (str, date, datetime)):
        return [value]
    return value


class SegmentLimits(Value):
    """The same of each segment's accounts; segments of fewer than ``at_least`` are counted together."""

    rejected: Probability | None = None
    unscoreable: Probability | None = None
    quarantined: Probability | None = None
    at_least: Annotated[Count, Field(ge=20)] = 100


class ErrorLimits(Value):
    """Error budgets: shares (0 to 1) of the accounts planned for the released as-of; what is left out is not limited.

    One account more holds the run before its release, until a person approves.
    """

    rejected: Probability | None = None
    unscoreable: Probability | None = None
    quarantined: Probability | None = None
    by_segment: SegmentLimits | None = Field(default=None, exclude_if=lambda limits: limits is None)


class RunSpec(Value):
    """What a run is to do. ``folder`` (not in the YAML) is where relative paths start."""

    name: str = Field(pattern=NAME)
    feature_set: Location
    sources: dict[Annotated[str, Field(pattern=NAME)], Source] = Field(min_length=1)
    bundles: tuple[Annotated[SpecBundle, BeforeValidator(_by_path, json_schema_input_type=Location | SpecBundle)], ...]
    as_of: Annotated[AsOfRange | tuple[Moment, ...] | None, BeforeValidator(_moments)] = (
        None  # backfill and sweep say it themselves
    )
    policy: Policy
    release: Literal["none", "latest"] = "none"
    store: Location = "store"
    # The *name* of the MySQL database of runs and flags (`batchscore db upgrade`); without it they are in the store's folder.
    database: Annotated[str, Field(pattern=NAME)] | None = None
    partition_rows: Annotated[Count, Field(ge=1, le=10_000_000)] = 50_000
    # A column of the accounts table: reports count flags by it. No feature and no score sees it.
    segment: ColumnName | None = None
    # More such columns, which the policy goes by. Frozen beside the features: another policy over them scores nothing again.
    groups: tuple[ColumnName, ...] = ()

    # Events tables whose days are judged before anything is scored: what is missing or unusual holds the run for a person.
    gate: dict[Annotated[str, Field(pattern=NAME)], TableGate] = Field(default_factory=dict)

    # How many accounts may be set aside, by class, before the run is held and not released.
    limits: ErrorLimits | None = None

    @model_validator(mode="after")
    def _one_bundle_flags(self) -> RunSpec:
        n_flagging = sum(not bundle.shadow for bundle in self.bundles)
        if n_flagging != 1:
            found = f"{n_flagging} bundles are to flag" if n_flagging else "no bundle flags"
            msg = f"{found} → name one by its path, and each other as {{path: …, shadow: true}}"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _has_as_ofs(self) -> RunSpec:
        moments = self.as_ofs()
        if self.as_of is not None and not moments:
            msg = "as_of is empty → name at least one date"
            raise ValueError(msg)
        if len(set(moments)) != len(moments):
            msg = "an as-of date stands twice → keep one"
            raise ValueError(msg)
        return self

    @property
    def group_columns(self) -> tuple[str, ...]:
        """Columns of the accounts that are frozen as names of groups, the segment first."""
        return tuple(dict.fromkeys((*([self.segment] if self.segment else []), *self.groups)))

    @property
    def bundle_paths(self) -> tuple[str, ...]:
        """Where the bundles lie: first the one that flags, then the shadows."""
        return tuple(bundle.path for bundle in sorted(self.bundles, key=lambda bundle: bundle.shadow))

    def as_ofs(self) -> tuple[datetime, ...]:
        """Every as-of, in order of time; none when the spec leaves them to `backfill` or `sweep`."""
        return self.as_of.moments() if isinstance(self.as_of, AsOfRange) else tuple(sorted(self.as_of or ()))

    def at(self, as_of: AsOfRange | tuple[datetime, ...], *, release: Literal["none", "latest"]) -> RunSpec:
        """The same spec for other as-ofs: what a backfill or a sweep of it asks for."""
        return self.model_copy(update={"as_of": as_of, "release": release})


def read_spec(path: Path) -> RunSpec:
    """The run spec at ``path``, with its locations made absolute.

    Raises:
        Refused: the file is missing, or has mistakes: all of them are listed.
    """
    spec = read_document(path, RunSpec, check=_mistakes)
    folder = path.resolve().parent

    def absolute(location: str) -> str:
        return str((folder / location).absolute())

    def placed(source: Source) -> Source:
        if source.parquet is not None:
            return source.model_copy(update={"parquet": ParquetSource(path=absolute(source.parquet.path))})
        if source.sql is None or source.sql.gentle.pause_file is None:
            return source
        gentle = source.sql.gentle.model_copy(update={"pause_file": absolute(source.sql.gentle.pause_file)})
        return source.model_copy(update={"sql": source.sql.model_copy(update={"gentle": gentle})})

    sources = {name: placed(source) for name, source in spec.sources.items()}
    return spec.model_copy(
        update={
            "feature_set": absolute(spec.feature_set),
            "bundles": tuple(bundle.model_copy(update={"path": absolute(bundle.path)}) for bundle in spec.bundles),
            "store": absolute(spec.store),
            "sources": sources,
        }
    )


def _mistakes(spec: RunSpec) -> Iterator[Mistake]:
    """What is wrong between the parts of a spec."""
    if spec.limits is not None and spec.limits.by_segment is not None and spec.segment is None:
        remedy = "declare it, such as segment: country"
        yield Mistake(("limits", "by_segment"), "is by the segment, and the spec names none", remedy)
    for place, column in spec.policy.columns().items():
        if column not in spec.group_columns:
            declare = f"groups: [{', '.join(dict.fromkeys((*spec.groups, column)))}]"
            yield Mistake(("policy", *place), f"{column!r} is not among the groups", f"declare it: {declare}")
