"""The feature set: reviewed text that says which tables there are and how each feature is made. Values only.

One YAML file, versioned, with a digest. It fixes the kind of account ids, the grain of time, the role of each table (`tables`),
and the ordered list of features (`definitions`). What a feature means is written in `windows` (over events) and `frame` (account
columns).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, TypeAdapter

from batchscore.digest import canonical_json, digest_of
from batchscore.document import Mistake, Place, read_document
from batchscore.features.definitions import (
    DAY,
    EPOCH,
    FROZEN,
    HOUR,
    MAX_WINDOW,
    AccountColumn,
    Age,
    Definition,
    Name,
    OverEvents,
    PythonFeature,
    parts_of,
    read_definition,
)
from batchscore.features.partials import Partial, partials_of
from batchscore.features.sentences import (
    GUARD,
    ExplainedFeatureSet,
    accounts_sentence,
    coverage_sentence,
    explained,
    sentence_of,
)
from batchscore.features.tables import TAKEN, TAKEN_BY_EVENTS, AccountsTable, EventsTable
from batchscore.files import verified
from batchscore.keys import ACCOUNT_ID, IdKind
from batchscore.plan import Reference
from batchscore.shown import Showable, Shown, ShownTable
from batchscore.values import Count, PositiveDuration, Probability, Value, format_duration
from batchscore.where import columns_of

RESERVED: Final = frozenset({ACCOUNT_ID, "as_of", "score", "margin"})


class FeatureSet(Showable, Value):
    """All of it. ``features`` are in the order of the YAML, which is the order of the frame's columns."""

    feature_set: Name
    version: Annotated[Count, Field(ge=1)]
    account_id: IdKind
    grain: PositiveDuration = DAY
    accounts: AccountsTable
    events: tuple[EventsTable, ...] = ()
    features: dict[Name, Annotated[Definition, BeforeValidator(read_definition)]] = Field(min_length=1)
    # The least share of the longest window that the data must reach back over; below it an account is unscoreable.
    coverage: Annotated[Probability, Field(gt=0)] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The features, in order."""
        return tuple(self.features)

    @property
    def digest(self) -> str:
        """64 hex over everything that decides a value; wording (``say``) and the floor of ``coverage`` are not part of it."""
        said = {name: definition.model_dump(mode="json", exclude={"say"}) for name, definition in self.features.items()}
        return digest_of(self.model_dump(mode="json", exclude={"features", "coverage"}) | {"features": list(said.items())})

    def frozen_json(self) -> str:
        """The whole feature set as canonical JSON; `open_feature_set` reads it back."""
        features = [[name, definition.model_dump(mode="json")] for name, definition in self.features.items()]
        floor = {} if self.coverage is None else {"coverage": self.coverage}  # absent, as in files frozen before there was one
        return canonical_json(
            self.model_dump(mode="json", exclude={"features", "coverage"}) | floor | {"features": features}
        ).decode()

    @classmethod
    def thaw(cls, text: str) -> FeatureSet:
        """The inverse of `frozen_json`; pairs keep the order that JSON with sorted keys would lose."""
        held = TypeAdapter(dict[str, Any]).validate_json(text)
        return cls.model_validate(
            held | {"features": {name: FROZEN.validate_python(fields) for name, fields in held["features"]}}
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
        found: set[str] = set()
        partials = self.partials(table)
        for partial in partials:
            found |= columns_of(partial.where) | ({partial.column} if partial.column is not None else set())
        tie = self.events_table(table).tie
        if tie is not None and any(partial.part in {"first", "last"} for partial in partials):
            found.add(tie)
        return tuple(sorted(found))

    @property
    def categories(self) -> dict[str, str]:
        """Features that are categories → the columns of the accounts that they read, which hold text."""
        columns = {name: one for name, one in self.features.items() if isinstance(one, AccountColumn)}
        return {name: definition.column for name, definition in columns.items() if definition.category}

    def partials(self, table: str) -> tuple[Partial, ...]:
        """What a rollup of ``table`` must hold beside events and their last moment, in the order of its columns."""
        found = {
            partial
            for definition in self.features.values()
            if isinstance(definition, OverEvents) and definition.table == table
            for partial in partials_of(definition)
        }
        return tuple(sorted(found, key=lambda partial: partial.name))

    def reach(self, table: str, partial: Partial | None = None) -> timedelta | None:
        """The longest window of the features over ``table`` (of those that need ``partial``); None when one has all history."""
        windows = [
            definition.window
            for definition in self.features.values()
            if isinstance(definition, OverEvents) and definition.table == table
            if partial is None or partial in partials_of(definition)
        ]
        return None if None in windows else max((window for window in windows if window is not None), default=timedelta(0))

    def shortest_window(self, table: str) -> timedelta | None:
        """The shortest window of the features over ``table``; None when there is none."""
        definitions = (held for held in self.features.values() if isinstance(held, OverEvents) and held.table == table)
        return min((held.window for held in definitions if held.window is not None), default=None)

    def longest_window(self, table: str) -> timedelta | None:
        """The longest window of the features over ``table``, which the data should reach back over; None without a window."""
        windows = [
            definition.window
            for definition in self.features.values()
            if isinstance(definition, OverEvents) and definition.table == table and definition.window is not None
        ]
        return max(windows, default=None)

    @property
    def functions(self) -> tuple[str, ...]:
        """The Python functions that features are made by, each once, sorted."""
        return tuple(
            sorted({definition.function for definition in self.features.values() if isinstance(definition, PythonFeature)})
        )

    def is_whole(self, as_of: datetime) -> bool:
        """Whether ``as_of`` is a whole number of grains in UTC, as every as-of must be."""
        return not (as_of - EPOCH) % self.grain

    def rollup_parameters(self, table: str) -> dict[str, object]:
        """What a rollup of ``table`` depends on, and no more: a new feature over the same measures rolls nothing up again."""
        return {
            "events": self.events_table(table).model_dump(mode="json", exclude={"verdict"}),
            "partials": [partial.name for partial in self.partials(table)],
            "grain": self.grain.total_seconds(),
            "kind": self.account_id,
        }

    def describe(self, name: str) -> str:
        """One plain sentence with ``{value}`` in it: what a reviewer reads. The feature's own ``say`` comes first."""
        return sentence_of(self.features[name])

    def shown(self) -> Shown:
        """What it is made of, and each feature in a sentence."""
        facts = [
            ("digest", self.digest),
            ("version", str(self.version)),
            ("grain", format_duration(self.grain)),
            ("accounts", f"{self.accounts.table}, ids are {self.account_id}"),
            ("events", ", ".join(events.table for events in self.events) or "none"),
        ]
        rows = [(name, self.describe(name)) for name in self.names]
        return Shown(f"feature set {self.feature_set}", facts, (ShownTable(("feature", "in words"), rows),))

    def explained(self) -> ExplainedFeatureSet:
        """The whole feature set in words: what `features show` tells."""
        limits = {events.table: events.distinct_limit for events in self.events}
        return ExplainedFeatureSet(
            feature_set=self.feature_set,
            version=self.version,
            grain=format_duration(self.grain),
            digest=self.digest,
            accounts=accounts_sentence(of_history=self.accounts.history is not None),
            coverage=coverage_sentence(
                self.coverage, {events.table: self.longest_window(events.table) for events in self.events}
            ),
            guard=GUARD,
            features=tuple(
                explained(
                    name,
                    definition,
                    limits[definition.table] if isinstance(definition, OverEvents) else 0,
                    of_history=self.accounts.history is not None,
                )
                for name, definition in self.features.items()
            ),
        )

    def mistakes(self) -> Iterator[Mistake]:
        """Mistakes between parts: what a single field cannot see."""
        if self.grain not in {DAY, HOUR}:
            yield Mistake(("grain",), "must be 1d or 1h", "write one of the two")
        tables = [self.accounts.table, *(events.table for events in self.events)]
        for number, events in enumerate(self.events):
            if tables.count(events.table) > 1:
                yield Mistake(
                    ("events", number, "table"), f"the table {events.table!r} is declared twice", "rename one of the two"
                )
            if events.tie is not None:
                yield from self._mistakes_of_event_column(events.tie, events, ("events", number, "tie"))
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
                if not definition.category and definition.column in self.categories.values():
                    what = f"{definition.column!r} is a category of another feature, so it holds text"
                    yield Mistake(place, what, "read it as a column or as a category, not as both")
            case Age():
                if self.accounts.created_at is None:
                    yield Mistake(place, "accounts declare no created_at", "add created_at to accounts, or remove the feature")
            case _:
                earlier = self.names[: self.names.index(name)]
                for part in parts_of(definition):
                    if part not in earlier:
                        yield Mistake(place, f"{part!r} is no feature above this one", "define it first")
                    elif part in self.categories:
                        yield Mistake(place, f"{part!r} is a category, and nothing can be counted with a name", "leave it out")

    def _mistakes_over_events(self, definition: OverEvents, place: Place) -> Iterator[Mistake]:
        tables = [events.table for events in self.events]
        if definition.table not in tables:
            yield Mistake(
                place, f"{definition.table!r} is no events table", f"use one of: {', '.join(tables) or 'none is declared'}"
            )
            return
        read = columns_of(definition.where) | ({definition.column} if definition.column is not None else set())
        for column in sorted(read):
            yield from self._mistakes_of_event_column(column, self.events_table(definition.table), place)
        window = definition.window
        if window is not None and (window % self.grain or not self.grain <= window <= MAX_WINDOW):
            unit, least = ("days", "1d") if self.grain == DAY else ("hours", "1h")
            such = "days, such as 7d" if self.grain == DAY else "hours or days, such as 12h"
            yield Mistake(place, f"the window is not a whole number of {unit} from {least} to 3650d", f"write it in {such}")

    @staticmethod
    def _mistakes_of_event_column(column: str, events: EventsTable, place: Place) -> Iterator[Mistake]:
        if column in TAKEN_BY_EVENTS:
            yield Mistake(place, f"{column!r} is the name of a column we make", "give the column another name")
        if column in events.verdict:
            yield Mistake(
                place, f"{column!r} is a verdict column (verdict_feature)", "a feature must not learn what a filter said"
            )

    def _mistakes_of_column(self, definition: AccountColumn, place: Place) -> Iterator[Mistake]:
        if definition.column in TAKEN | self.accounts.times.keys():
            yield Mistake(
                place, f"{definition.column!r} is the name of a column we make", "give the column another name, or use age"
            )
        elif definition.column in self.accounts.verdict:
            yield Mistake(
                place,
                f"{definition.column!r} is a verdict column (verdict_feature)",
                "a feature must not learn what a filter said",
            )
        elif self.accounts.history is None and definition.column not in self.accounts.immutable:
            yield Mistake(
                place,
                f"{definition.column!r} is not declared immutable (not_immutable): its value of today would stand in the past",
                "add it to accounts.immutable if it never changes, or give the table's history (accounts.history)",
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
