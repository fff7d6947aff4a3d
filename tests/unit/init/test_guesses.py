"""init guesses a column's role where name and type tell it, and otherwise names the candidates."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from batchscore.errors import Refused
from batchscore.features.tables import TimeColumn
from batchscore.init.columns import Column, Kind
from batchscore.init.guess import NamedColumns, guess_accounts, guess_events
from batchscore.init.text import quoted, table_name


def columns(**kinds: Kind) -> tuple[Column, ...]:
    return tuple(
        Column(name=name, kind=kind, time=TimeColumn(column=name) if kind == "time" else None) for name, kind in kinds.items()
    )


ACCOUNTS, _ = guess_accounts(columns(user_id="integer", created_at="time"), NamedColumns())


def test_an_account_is_told_by_the_usual_names() -> None:
    accounts, guessed = guess_accounts(columns(user_id="text", signed_up="time", plan="integer", banned="bool"), NamedColumns())
    assert (accounts.key, accounts.kind) == ("user_id", "string")
    assert accounts.created_at == TimeColumn(column="signed_up")
    assert [column.name for column in accounts.others] == ["plan"]
    assert accounts.verdict == ("banned",)
    assert [(guess.of, guess.column) for guess in guessed] == [("accounts.key", "user_id"), ("accounts.created_at", "signed_up")]


def test_a_bare_id_beside_a_user_id_is_the_rows_own() -> None:
    events, _ = guess_events(columns(id="integer", user_id="integer", sent_at="time"), ACCOUNTS, NamedColumns())
    assert events.key == "user_id"


def test_an_accounts_bare_id_is_found_under_another_name_in_events() -> None:
    accounts, _ = guess_accounts(columns(id="integer", created_at="time"), NamedColumns())
    events, _ = guess_events(columns(id="integer", account_id="integer", at="time"), accounts, NamedColumns())
    assert (accounts.key, events.key) == ("id", "account_id")


@pytest.mark.parametrize(
    ("found", "candidates"),
    [
        (columns(user_id="integer", customer_id="integer"), ("'user_id'", "'customer_id'", "--key")),
        (columns(nick="text", city="text"), ("'nick'", "'city'", "--key")),
        (columns(user_id="float"), ("no column has a type", "--key")),
        (columns(id="integer", created_at="time", signed_up="time"), ("'created_at'", "'signed_up'", "--created-at")),
    ],
)
def test_what_cannot_be_told_of_accounts_is_refused_with_the_candidates(
    found: tuple[Column, ...], candidates: tuple[str, ...]
) -> None:
    with pytest.raises(Refused) as refused:
        guess_accounts(found, NamedColumns())
    assert refused.value.reason == "column_unclear"
    assert all(candidate in str(refused.value) for candidate in candidates)


@pytest.mark.parametrize(
    ("found", "candidates"),
    [
        (columns(user_id="integer", sent_at="time", received_at="time"), ("'sent_at'", "'received_at'", "--event-at")),
        (columns(user_id="integer", moment="time", queued="time"), ("'moment'", "'queued'", "--event-at")),
        (columns(user_id="integer", size="integer"), ("--event-at",)),
        (columns(user_id="text", sent_at="time"), ("no column has a type", "--key")),
    ],
)
def test_what_cannot_be_told_of_events_is_refused_with_the_candidates(
    found: tuple[Column, ...], candidates: tuple[str, ...]
) -> None:
    with pytest.raises(Refused) as refused:
        guess_events(found, ACCOUNTS, NamedColumns())
    assert all(candidate in str(refused.value) for candidate in candidates)


def test_a_column_that_is_named_needs_no_guess() -> None:
    said = NamedColumns(key="nick", created_at="first", event_at="queued", known_at="moment")
    accounts, _ = guess_accounts(columns(user_id="text", nick="text", first="time"), said)
    events, _ = guess_events(columns(nick="text", moment="time", queued="time"), accounts, said)
    assert (accounts.key, events.key) == ("nick", "nick")
    assert (accounts.created_at, events.event_at, events.known_at) == tuple(map(time, ("first", "queued", "moment")))


def time(name: str) -> TimeColumn:
    return TimeColumn(column=name)


def test_one_column_may_be_named_as_when_events_happened_and_were_known() -> None:
    found = columns(user_id="integer", sent_at="time", loaded_at="time")
    events, guessed = guess_events(found, ACCOUNTS, NamedColumns(event_at="sent_at", known_at="sent_at"))
    assert (events.event_at, events.known_at) == (time("sent_at"), None)
    assert guessed[-1].why == "named, as the time it happened"
    with pytest.raises(Refused, match="name one of: 'sent_at', 'loaded_at'"):
        guess_events(found, ACCOUNTS, NamedColumns(event_at="gone", known_at="gone"))


def test_a_column_that_is_named_as_when_events_happened_is_not_guessed_as_when_they_were_known() -> None:
    found = columns(user_id="integer", sent_at="time", loaded_at="time")
    events, _ = guess_events(found, ACCOUNTS, NamedColumns(event_at="loaded_at"))
    assert (events.event_at, events.known_at) == (time("loaded_at"), None)


def test_a_named_column_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(Refused, match="name one of: 'created_at'"):
        guess_accounts(columns(user_id="text", created_at="time"), NamedColumns(created_at="born"))


def test_the_only_time_of_events_is_when_they_happened_and_were_known() -> None:
    events, _ = guess_events(columns(user_id="integer", moment="time"), ACCOUNTS, NamedColumns())
    assert (events.event_at, events.known_at) == (time("moment"), None)


@given(st.text(min_size=1, max_size=20))
@example("A\n")
def test_any_name_is_read_back_from_yaml_as_it_was(name: str) -> None:
    assert yaml.safe_load(f"{{column: {quoted(name)}, other: 1}}") == {"column": name, "other": 1}


@given(st.text(max_size=60))
def test_a_table_is_named_by_its_file_or_else(text: str) -> None:
    name = table_name(text, "events")
    assert yaml.safe_load(f"table: {name}") == {"table": name}
