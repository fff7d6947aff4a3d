"""The feature set: reviewed text that says which tables there are and how each feature is made. Values only.

One YAML file, versioned, with a digest. It fixes the kind of account ids, the grain of time, the role of each table, and
the ordered list of features. What a feature means is written in `windows` (over events) and `frame` (account columns).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter

from batchscore.digest import canonical_json, digest_of
from batchscore.document import Mistake, Place, read_document
from batchscore.files import verified
from batchscore.keys import ACCOUNT_ID, IdKind
from batchscore.plan import Reference
from batchscore.spec import NAME, Count, Duration, PositiveDuration, Value

Name = Annotated[str, Field(pattern=NAME)]
Column = Annotated[str, Field(min_length=1, max_length=255)]
Unit = Literal["s", "ms", "us", "ns"]
Aggregate = Literal["count", "sum", "min", "max", "mean", "distinct", "days_active", "time_since"]

GRAIN: Final = timedelta(days=1)
MAX_WINDOW: Final = timedelta(days=3650)
RESERVED: Final = frozenset({ACCOUNT_ID, "as_of", "score", "margin"})
TAKEN: Final = frozenset({ACCOUNT_ID, "created_at", "deleted_at"})  # columns of every snapshot
TAKEN_BY_EVENTS: Final = frozenset({ACCOUNT_ID, "event_at", "known_at"})  # columns of all canonical events
OF_COLUMNS: Final = frozenset({"sum", "min", "max", "mean", "distinct"})  # the others count or date events as such


def _sentence(value: str) -> str:
    if {"{", "}"} & set(value.replace("{value}", "")):
        msg = f"{value!r} has braces that are not {{value}} → write {{value}} where the value stands"
        raise ValueError(msg)
    return value


Say = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_sentence)]


class TimeColumn(Value):
    """A column that holds a time: a timestamp, or an integer in ``unit`` since 1970. ``zone`` is declared for naive ones."""

    column: Column
    unit: Unit | None = None
    zone: str | None = None


def _time_column(value: Any) -> Any:
    return {"column": value} if isinstance(value, str) else value


def _declared(value: Any) -> Any:
    if value is None:
        msg = "is missing, so a backfill could not tell what was known when → name its column, or declare known_at: event_at"
        raise ValueError(msg)
    return value


Time = Annotated[TimeColumn, BeforeValidator(_time_column)]
KnownAt = Annotated[Literal["event_at"] | Time, BeforeValidator(_declared)]


class AccountsTable(Value):
    """The accounts: one row each. ``immutable`` columns may be features in a backfill; ``verdict`` columns never."""

    table: Name
    key: Column
    created_at: Time | None = None
    deleted_at: Time | None = None
    immutable: tuple[Column, ...] = ()
    verdict: tuple[Column, ...] = ()


class EventsTable(Value):
    """Events of accounts: many rows each. ``known_at`` is when a row became visible; it must be declared."""

    table: Name
    key: Column
    event_at: Time
    known_at: KnownAt = Field(default=None, validate_default=True)  # "event_at": every row was known when it happened
    skew: Duration = timedelta(0)
    verdict: tuple[Column, ...] = ()
    distinct_limit: Annotated[Count, Field(ge=16, le=65_536)] = 256


class OverEvents(Value):
    """An aggregate over the events of a window that ends at the as-of; ``window`` None is the whole history."""

    kind: Literal["over_events"] = "over_events"
    table: Name
    aggregate: Aggregate
    column: Column | None = None
    window: Duration | None = None
    say: Say | None = None


class Ratio(Value):
    """One feature divided by another; missing where either is missing or the divisor is 0."""

    kind: Literal["ratio"] = "ratio"
    numerator: Name
    denominator: Name
    say: Say | None = None


class AccountColumn(Value):
    """A column of the accounts table, as it is."""

    kind: Literal["column"] = "column"
    column: Column
    say: Say | None = None


class Age(Value):
    """Days from the account's ``created_at`` to the as-of."""

    kind: Literal["age"] = "age"
    say: Say | None = None


def _definition(value: Any) -> Any:
    """The YAML form (``{sum: mails.bytes, window: 7d}``) as the fields of one of the definitions."""
    if not isinstance(value, dict):
        return value
    rest = dict(value)
    say = rest.pop("say", None)
    window = rest.pop("window", None)
    if len(rest) != 1:
        msg = f"needs exactly one of {', '.join(_FORMS)} → such as {{count: mails, window: 7d}}"
        raise ValueError(msg)
    ((form, of),) = rest.items()
    if form not in _FORMS:
        msg = f"{form!r} is not a kind of feature → use one of {', '.join(_FORMS)}"
        raise ValueError(msg)
    if form in {"ratio", "column", "age"}:
        if window is not None:
            msg = f"a {form} has no window → remove it"
            raise ValueError(msg)
        return _without_events(form, of) | {"say": say}
    if not isinstance(of, str):
        msg = f"{form} wants a table{' and column, such as mails.bytes' if form in OF_COLUMNS else ', such as mails'} → name it"
        raise ValueError(msg)  # noqa: TRY004 (pydantic collects ValueError, not TypeError)
    table, dot, column = of.partition(".")
    if bool(dot) != (form in OF_COLUMNS):
        wanted = "a column, such as mails.bytes" if form in OF_COLUMNS else "a table alone, such as mails"
        msg = f"{form} wants {wanted} → change {of!r}"
        raise ValueError(msg)
    return {"kind": "over_events", "table": table, "aggregate": form, "column": column or None, "window": window, "say": say}


def _without_events(form: str, of: Any) -> dict[str, Any]:
    if form == "column":
        return {"kind": "column", "column": of}
    if form == "age":
        if of != "created_at":
            msg = "an age is counted from created_at → write {age: created_at}"
            raise ValueError(msg)
        return {"kind": "age"}
    if not isinstance(of, list) or len(of) != len(("numerator", "denominator")):
        msg = "a ratio is of two features → write {ratio: [mails_7d, mails_28d]}"
        raise ValueError(msg)
    return {"kind": "ratio", "numerator": of[0], "denominator": of[1]}


_FORMS: Final = ("count", "sum", "min", "max", "mean", "distinct", "days_active", "time_since", "ratio", "column", "age")
Definition = Annotated[OverEvents | Ratio | AccountColumn | Age, Field(discriminator="kind")]
_FROZEN: Final = TypeAdapter[Definition](Definition)  # `frozen_json` has the fields of a definition, not its YAML form


class FeatureSet(Value):
    """All of it. ``features`` are in the order of the YAML, which is the order of the frame's columns."""

    feature_set: Name
    version: Annotated[Count, Field(ge=1)]
    account_id: IdKind
    grain: PositiveDuration = GRAIN
    accounts: AccountsTable
    events: tuple[EventsTable, ...] = ()
    features: dict[Name, Annotated[Definition, BeforeValidator(_definition)]] = Field(min_length=1)

    @property
    def names(self) -> tuple[str, ...]:
        """The features, in order."""
        return tuple(self.features)

    @property
    def digest(self) -> str:
        """64 hex over everything that decides a value; wording (``say``) is not part of it."""
        said = {name: definition.model_dump(mode="json", exclude={"say"}) for name, definition in self.features.items()}
        return digest_of(self.model_dump(mode="json", exclude={"features"}) | {"features": list(said.items())})

    def frozen_json(self) -> str:
        """The whole feature set as canonical JSON; `open_feature_set` reads it back."""
        features = [[name, definition.model_dump(mode="json")] for name, definition in self.features.items()]
        return canonical_json(self.model_dump(mode="json", exclude={"features"}) | {"features": features}).decode()

    @classmethod
    def thaw(cls, text: str) -> FeatureSet:
        """The inverse of `frozen_json`; pairs keep the order that JSON with sorted keys would lose."""
        held = TypeAdapter(dict[str, Any]).validate_json(text)
        return cls.model_validate(
            held | {"features": {name: _FROZEN.validate_python(fields) for name, fields in held["features"]}}
        )

    def events_table(self, table: str) -> EventsTable:
        """The events table of that name."""
        return next(events for events in self.events if events.table == table)

    def column_names(self, table: str) -> tuple[str, ...]:
        """The columns of ``table`` that features read, sorted; key and times are declared beside them."""
        if table == self.accounts.table:
            return tuple(
                sorted({definition.column for definition in self.features.values() if isinstance(definition, AccountColumn)})
            )
        return tuple(sorted({column for column, _ in self.measures(table)}))

    def measures(self, table: str) -> tuple[tuple[str, str], ...]:
        """(column, aggregate) pairs that a rollup of ``table`` must hold, sorted; a mean is held as a sum."""
        return tuple(
            sorted(
                {
                    (definition.column, "sum" if definition.aggregate == "mean" else definition.aggregate)
                    for definition in self.features.values()
                    if isinstance(definition, OverEvents) and definition.table == table and definition.column is not None
                }
            )
        )

    def rollup_parameters(self, table: str) -> dict[str, object]:
        """What a rollup of ``table`` depends on, and no more: a new feature over the same measures rolls nothing up again."""
        return {
            "events": self.events_table(table).model_dump(mode="json", exclude={"verdict"}),
            "measures": self.measures(table),
            "grain": self.grain.total_seconds(),
            "kind": self.account_id,
        }

    def describe(self, name: str) -> str:
        """One plain sentence with ``{value}`` in it: what a reviewer reads. The feature's own ``say`` comes first."""
        definition = self.features[name]
        if definition.say is not None:
            return definition.say if "{value}" in definition.say else f"{definition.say}: {{value}}"
        match definition:
            case OverEvents():
                return _describe_over_events(definition)
            case Ratio():
                return f"{definition.numerator} over {definition.denominator} is {{value}}"
            case AccountColumn():
                return f"{definition.column} is {{value}}"
            case Age():
                return "the account is {value} days old"

    def mistakes(self) -> Iterator[Mistake]:
        """Mistakes between parts: what a single field cannot see."""
        if self.grain != GRAIN:
            yield Mistake(("grain",), "must be 1d", "remove the line")
        tables = [self.accounts.table, *(events.table for events in self.events)]
        for number, events in enumerate(self.events):
            if tables.count(events.table) > 1:
                yield Mistake(
                    ("events", number, "table"), f"the table {events.table!r} is declared twice", "rename one of the two"
                )
        for name, definition in self.features.items():
            if name in RESERVED:
                yield Mistake(("features", name), "is a reserved name", "call it otherwise")
            yield from self._mistakes_of(name, definition)

    def _mistakes_of(self, name: str, definition: Definition) -> Iterator[Mistake]:
        place = ("features", name)
        match definition:
            case OverEvents():
                yield from self._mistakes_over_events(definition, place)
            case AccountColumn():
                yield from self._mistakes_of_column(definition, place)
            case Ratio():
                earlier = self.names[: self.names.index(name)]
                for part in (definition.numerator, definition.denominator):
                    if part not in earlier:
                        yield Mistake(place, f"{part!r} is no feature above this one", "define it first")
            case Age():
                if self.accounts.created_at is None:
                    yield Mistake(place, "accounts declare no created_at", "add created_at to accounts, or remove the feature")

    def _mistakes_over_events(self, definition: OverEvents, place: Place) -> Iterator[Mistake]:
        tables = [events.table for events in self.events]
        if definition.table not in tables:
            yield Mistake(
                place, f"{definition.table!r} is no events table", f"use one of: {', '.join(tables) or 'none is declared'}"
            )
            return
        if definition.column in TAKEN_BY_EVENTS:
            yield Mistake(place, f"{definition.column!r} is the name of a column we make", "give the column another name")
        if definition.column in self.events_table(definition.table).verdict:
            yield Mistake(
                place,
                f"{definition.column!r} is a verdict column (verdict_feature)",
                "a feature must not learn what a filter said",
            )
        window = definition.window
        if window is not None and (window % self.grain or not self.grain <= window <= MAX_WINDOW):
            yield Mistake(place, "the window is not a whole number of days from 1d to 3650d", "write it in days, such as 7d")

    def _mistakes_of_column(self, definition: AccountColumn, place: Place) -> Iterator[Mistake]:
        if definition.column in TAKEN:
            yield Mistake(
                place, f"{definition.column!r} is the name of a column we make", "give the column another name, or use age"
            )
        elif definition.column in self.accounts.verdict:
            yield Mistake(
                place,
                f"{definition.column!r} is a verdict column (verdict_feature)",
                "a feature must not learn what a filter said",
            )
        elif definition.column not in self.accounts.immutable:
            yield Mistake(
                place,
                f"{definition.column!r} is not declared immutable (not_immutable): its value of today would stand in the past",
                "add it to accounts.immutable if it never changes",
            )


def read_feature_set(path: Path) -> FeatureSet:
    """The feature set at ``path``.

    Raises:
        Refused: the file is missing, or has mistakes: all of them are listed.
    """
    return read_document(path, FeatureSet, check=FeatureSet.mistakes)


@lru_cache(maxsize=16)
def open_feature_set(reference: Reference) -> FeatureSet:
    """The frozen feature set that ``reference`` names; read and verified once per process.

    Raises:
        PartitionError: ``input_digest_mismatch`` or ``file_missing``.
    """
    return FeatureSet.thaw(verified(reference.path, reference.sha256).read_text(encoding="utf-8"))


def _describe_over_events(definition: OverEvents) -> str:
    over = "ever" if definition.window is None else f"in {definition.window.days} days"
    table, column = definition.table, definition.column
    return {
        "count": f"{{value}} {table} {over}",
        "sum": f"{column} of {table} add up to {{value}} {over}",
        "min": f"least {column} of {table} {over}: {{value}}",
        "max": f"largest {column} of {table} {over}: {{value}}",
        "mean": f"mean {column} of {table} {over}: {{value}}",
        "distinct": f"{{value}} different {column} in {table} {over}",
        "days_active": f"{{value}} days with {table} {over}",
        "time_since": f"{{value}} days since the last of {table}",
    }[definition.aggregate]
