"""Which column is what, from names and types: pure. Where it cannot be told, the candidates are named and nothing is guessed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from batchscore.errors import Refused
from batchscore.features.tables import TimeColumn
from batchscore.init.columns import Column
from batchscore.init.started import Guessed
from batchscore.keys import IdKind

_KEYS: Final = ("account_id", "user_id", "customer_id", "sender_id", "member_id", "client_id", "subscriber_id", "uid", "id")
_CREATED: Final = (
    *("created_at", "created", "created_on", "creation_date", "signed_up_at", "signed_up", "signup_at", "signup_date"),
    *("registered_at", "registered", "registered_on", "joined_at", "first_seen_at", "first_mail_at"),
)
_EVENT: Final = (
    *("event_at", "event_time", "sent_at", "mailed_at", "occurred_at", "happened_at", "received_at", "at", "ts"),
    *("timestamp", "time", "date", "datetime"),
)
_KNOWN: Final = ("known_at", "known", "ingested_at", "loaded_at", "inserted_at", "landed_at", "arrived_at", "processed_at")
_VERDICTS: Final = frozenset(
    (
        *("label", "labels", "is_spam", "is_abuse", "is_abusive", "is_fraud", "spam", "abuse", "verdict", "disposition"),
        *("flag", "flagged", "suspended", "banned", "blocked", "score", "spam_score", "risk_score", "outcome", "decision"),
    )
)
_ONLY: Final = "the only column of that meaning and type"


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedColumns:
    """Columns that the operator named; an empty name leaves it to the guess."""

    key: str = ""
    created_at: str = ""
    event_at: str = ""
    known_at: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class GuessedAccounts:
    """The accounts table as guessed. ``others``: columns that might be features, ``verdict``: those that must not."""

    key: str
    kind: IdKind
    created_at: TimeColumn | None
    others: tuple[Column, ...]
    verdict: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class GuessedEvents:
    """An events table as guessed. ``known_at`` None: a row was known when it happened."""

    key: str
    event_at: TimeColumn
    known_at: TimeColumn | None
    others: tuple[Column, ...]
    verdict: tuple[str, ...]


def guess_accounts(columns: Sequence[Column], said: NamedColumns) -> tuple[GuessedAccounts, tuple[Guessed, ...]]:
    """The accounts table that has these columns, and what was guessed of it.

    Raises:
        Refused: ``column_unclear``: the key cannot be told, or there are several times of creation; ``column_missing``: the
            operator named a column that is not there.
    """
    ids = [column for column in columns if column.kind in {"integer", "text"}]
    key, why = _key("accounts", ids, said.key)
    times = [column for column in columns if column.time is not None and column.name != key.name]
    created, why_created = _time("accounts.created_at", times, _CREATED, said.created_at)
    guessed = (
        Guessed(of="accounts.key", column=key.name, why=why),
        Guessed(of="accounts.created_at", column=created.column if created else "", why=why_created),
    )
    taken = {key.name, created.column if created else ""}
    others, verdict = _others(columns, taken)
    kind: IdKind = "integer" if key.kind == "integer" else "string"
    return GuessedAccounts(key=key.name, kind=kind, created_at=created, others=others, verdict=verdict), guessed


def guess_events(
    columns: Sequence[Column], accounts: GuessedAccounts, said: NamedColumns
) -> tuple[GuessedEvents, tuple[Guessed, ...]]:
    """The events table that has these columns, of those accounts, and what was guessed of it.

    Raises:
        Refused: ``column_unclear``: the key or the time of an event cannot be told; ``column_missing`` as `guess_accounts`.
    """
    wanted = "integer" if accounts.kind == "integer" else "text"
    ids = [column for column in columns if column.kind == wanted]
    names = [column.name for column in columns]
    told = said.key if said.key in names else ""
    same = accounts.key if accounts.key != "id" and accounts.key in {column.name for column in ids} else ""
    key, why = _key("events", ids, told or same)
    why = "named as the accounts' key is" if same and not told else why
    times = [column for column in columns if column.time is not None and column.name != key.name]
    if said.known_at and said.known_at == said.event_at:  # one column may be both, and then nothing is left to guess
        _named(times, said.known_at, "events.known_at")
        known, why_known = None, "named, as the time it happened"
    else:
        free = [column for column in times if column.name != said.event_at]
        known, why_known = _time("events.known_at", free, _KNOWN, said.known_at)
    left = [column for column in times if known is None or column.name != known.column]
    event, why_event = _time("events.event_at", left, _EVENT, said.event_at)
    if event is None:
        physical = [column for column in left if column.kind == "time"]
        if len(physical) != 1:
            raise _unclear("events.event_at", physical, "--event-at")
        event, why_event = physical[0].time, "the only time among the columns"
    assert event is not None, "every column among `times` has one"
    guessed = (
        Guessed(of="events.key", column=key.name, why=why),
        Guessed(of="events.event_at", column=event.column, why=why_event),
        Guessed(
            of="events.known_at",
            column=known.column if known else "event_at",
            why=why_known if known or said.known_at else "no column tells",
        ),
    )
    others, verdict = _others(columns, {key.name, event.column, known.column if known else ""})
    return GuessedEvents(key=key.name, event_at=event, known_at=known, others=others, verdict=verdict), guessed


def _key(table: str, ids: Sequence[Column], said: str) -> tuple[Column, str]:
    """The column of account ids. A bare ``id`` beside ``user_id`` is the row's own."""
    if said:
        return _named(ids, said, f"{table}.key"), "named"
    found = [column for column in ids if column.name.casefold() in _KEYS]
    if len(found) > 1:
        found = [column for column in found if column.name.casefold() != "id"]
    if len(found) != 1:
        raise _unclear(f"{table}.key", found or ids, "--key")
    return found[0], "the only column named as account ids are"


def _time(of: str, times: Sequence[Column], names: Sequence[str], said: str) -> tuple[TimeColumn | None, str]:
    if said:
        return _named(times, said, of).time, "named"
    found = [column for column in times if column.name.casefold() in names]
    if len(found) > 1:
        raise _unclear(of, found, f"--{of.rpartition('.')[2].replace('_', '-')}")
    return (found[0].time, _ONLY) if found else (None, "no column is named as such times are")


def _named(among: Iterable[Column], name: str, of: str) -> Column:
    found = {column.name: column for column in among}
    if name not in found:
        raise Refused(
            "column_missing",
            f"no column that can be used is called {name!r}",
            where=of,
            remedy=f"name one of: {', '.join(map(repr, found)) or 'there is none'}",
        )
    return found[name]


def _unclear(of: str, candidates: Sequence[Column], option: str) -> Refused:
    among = ", ".join(f"{column.name!r} ({column.kind})" for column in candidates)
    what = f"names and types do not tell which column it is: {among}" if among else "no column has a type that it could be"
    return Refused("column_unclear", what, where=of, remedy=f"name it: {option} COLUMN")


def _others(columns: Iterable[Column], taken: set[str]) -> tuple[tuple[Column, ...], tuple[str, ...]]:
    """(columns that may be features, columns that say what somebody decided)."""
    left = [column for column in columns if column.name not in taken and column.kind not in {"time", "other"}]
    verdict = tuple(column.name for column in left if column.name.casefold() in _VERDICTS)
    return tuple(column for column in left if column.name not in verdict), verdict
