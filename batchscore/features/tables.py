"""The tables that a feature set declares: which column is the key, which are times, and what may be read of them. Values only."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field

from batchscore.features.definitions import Column, Name
from batchscore.keys import ACCOUNT_ID
from batchscore.values import Count, Duration, Value

Unit = Literal["s", "ms", "us", "ns"]
Scale = Annotated[Count, Field(ge=0, le=9)]

CREATED_AT: Final = "created_at"
DELETED_AT: Final = "deleted_at"
VALID_FROM: Final = "valid_from"
VALID_TO: Final = "valid_to"
TAKEN: Final = frozenset({ACCOUNT_ID, CREATED_AT, DELETED_AT})  # columns of every snapshot
TAKEN_BY_EVENTS: Final = frozenset({ACCOUNT_ID, "event_at", "known_at"})  # columns of all canonical events


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


class History(Value):
    """From when (included) to when (not included; null: still) a row of a history holds; what it says is known from then on."""

    valid_from: Time
    valid_to: Time


class AccountsTable(Value):
    """The accounts: one row each, or with a ``history`` one for each time that something held of an account.

    Columns of a history may be features; without one only ``immutable`` columns, ``verdict`` columns never.
    """

    table: Name
    key: Column
    created_at: Time | None = None
    deleted_at: Time | None = None
    # Left out of digests where there is none: bundles of feature sets that are older than histories stay valid.
    history: History | None = Field(default=None, exclude_if=lambda history: history is None)
    immutable: tuple[Column, ...] = ()
    verdict: tuple[Column, ...] = ()

    @property
    def times(self) -> dict[str, TimeColumn]:
        """The time columns it declares, by the name that each has in a snapshot."""
        declared = {CREATED_AT: self.created_at, DELETED_AT: self.deleted_at}
        if self.history is not None:
            declared |= {VALID_FROM: self.history.valid_from, VALID_TO: self.history.valid_to}
        return {name: time for name, time in declared.items() if time is not None}


class EventsTable(Value):
    """Events of accounts: many rows each. ``known_at`` is when a row became visible; it must be declared."""

    table: Name
    key: Column
    event_at: Time
    known_at: KnownAt = Field(default=None, validate_default=True)  # "event_at": every row was known when it happened
    skew: Duration = timedelta(0)
    verdict: tuple[Column, ...] = ()
    tie: Column | None = None  # which of two events of one moment is the later: the one with the larger value here
    decimals: dict[Column, Scale] = Field(default_factory=dict)  # float columns that stand for decimals, and their digits
    distinct_limit: Annotated[Count, Field(ge=16, le=65_536)] = 256
