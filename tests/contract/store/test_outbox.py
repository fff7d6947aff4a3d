"""The outbox and the trail: each change is told once, in the order of commits, and none before it is seen."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from batchscore.desk import Happened
from batchscore.errors import Refused
from batchscore.ports import ReleaseCount, Suppression
from batchscore.store import Ledger, ReviewDesk, open_reader
from tests.contract.store.at_the_desk import HOUR, execute, released, says, shown
from tests.contract.store.conftest import AS_OF, make_flag, make_plan


def test_every_change_is_an_event_and_numbers_have_no_gap(store: Ledger, desk: ReviewDesk, store_folder: Path) -> None:
    first = released(store, store_folder, "first", 7, 8, 9)
    desk.claim("abuse", by="ann", for_=HOUR)
    second = released(store, store_folder, "second", 7, 6, score=0.9)
    released(store, store_folder, "same", 7, score=0.9)
    desk.decide([says(7)])
    released(store, store_folder, "third", 7)
    store.undo(second.run_id, by="cid", why="wrong model")
    reader = open_reader(store_folder)
    told = reader.events(0, limit=100)
    assert [event.number for event in told] == list(range(1, len(told) + 1))
    assert [(event.act, event.account_id, event.state.value) for event in told] == [
        (Happened.OPENED, 7, "open"), (Happened.OPENED, 8, "open"), (Happened.OPENED, 9, "open"),
        (Happened.CLAIMED, 7, "claimed"),
        (Happened.EVIDENCE, 7, "overtaken"), (Happened.OPENED, 6, "open"),
        (Happened.UNMOVED, 7, "overtaken"),
        (Happened.DECIDED, 7, "cleared"),
        (Happened.KEPT, 7, "overtaken"),
        (Happened.WITHDRAWN, 6, "withdrawn"),
    ]  # fmt: skip
    assert told[0].run_id == first.run_id
    read: list[Any] = []
    while some := reader.events(read[-1].number if read else 0, limit=2):
        assert len(some) <= 2
        read += some
    assert tuple(read) == told
    rows = execute(
        store_folder, "SELECT number, act, account_id FROM review_events WHERE upto > 2 AND number > 2 ORDER BY number"
    )
    assert [tuple(row) for row in rows] == [(event.number, event.act.value, event.account_id) for event in told[2:]]


def test_no_event_of_a_run_is_told_before_it_is_released(
    store: Ledger, store_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from batchscore.store import flags

    monkeypatch.setattr(flags, "ROWS_A_TRANSACTION", 1)
    run, _ = store.open(make_plan(store_folder, name="slow"), owner="me")

    def slowly() -> Iterator[Any]:
        for number in (1, 2, 3):
            assert open_reader(store_folder).events(0, limit=10) == ()
            yield make_flag(number, run_id=run.run_id, rank=number)

    store.release(run, slowly())
    assert [event.number for event in open_reader(store_folder).events(0, limit=10)] == [1, 2, 3]


def test_more_flags_of_a_released_run_come_with_events_of_their_own(store: Ledger, desk: ReviewDesk, store_folder: Path) -> None:
    run = released(store, store_folder, "first", 1, 5)
    other = released(store, store_folder, "other", 3)
    desk.decide([says(5)])
    more = [make_flag(number, run_id=run.run_id, rank=number) for number in (1, 2, 3)]
    assert store.release_more(run.run_id, iter(more), by="cron") == ReleaseCount(n_flags=1, n_overtaken=1)
    assert store.release_more(run.run_id, iter(more), by="cron") == ReleaseCount(n_flags=0, n_overtaken=0)
    told = open_reader(store_folder).events(0, limit=100)
    assert [(event.number, event.act, event.account_id) for event in told] == [
        (1, Happened.OPENED, 1), (2, Happened.OPENED, 5), (3, Happened.OPENED, 3), (4, Happened.DECIDED, 5),
        (5, Happened.OPENED, 2), (6, Happened.UNMOVED, 3),
    ]  # fmt: skip
    assert execute(store_folder, "SELECT COUNT(*), COUNT(DISTINCT number) FROM review_events").one() == (6, 6)
    assert open_reader(store_folder).account_events("abuse", 2) == told[4:5]
    assert shown(store_folder) == [(1, "open"), (3, "open"), (2, "open")]
    store.undo(other.run_id, by="cid", why="wrong model")
    store.undo(run.run_id, by="cid", why="wrong model")
    with pytest.raises(Refused, match="nothing_to_release"):
        store.release_more(run.run_id, iter(more), by="cron")


def test_no_more_of_a_reserve_goes_on_a_day_than_its_pace(store: Ledger, desk: ReviewDesk, store_folder: Path) -> None:
    run = released(store, store_folder, "first", 1, 5)
    time.sleep(0.01)  # what comes later is told by the clock
    more = [make_flag(number, run_id=run.run_id, rank=10 - number) for number in (2, 3, 4)]
    assert store.release_more(run.run_id, iter(more), by="cron", per_day=2) == ReleaseCount(n_flags=2, n_overtaken=0)
    assert store.release_more(run.run_id, iter(more), by="ann", per_day=2) == ReleaseCount(n_flags=0, n_overtaken=0)
    assert {account for account, _ in shown(store_folder)} == {1, 5, 3, 4}, "the best ranks"
    assert store.release_more(run.run_id, iter(more), by="ann", per_day=3) == ReleaseCount(n_flags=1, n_overtaken=0)


def test_the_audit_trail_tells_of_each_verb(store: Ledger, desk: ReviewDesk, store_folder: Path) -> None:
    released(store, store_folder, "first", 7)
    desk.claim("abuse", by="ann", for_=HOUR)
    desk.return_claims("abuse", by="ann")
    desk.decide([says(7)])
    until = datetime.now(UTC) + 5 * HOUR
    asked = Suppression(scope="account", key="7", owner="trust team", why="a test", begins_at=AS_OF, until=until)
    desk.suppress("abuse", asked, by="ann")
    entries = [entry for entry, _ in open_reader(store_folder).audit()]
    assert [entry.act for entry in entries] == ["released", "claimed", "returned", "decided", "suppressed"]
    assert entries[4].account == entries[1].account, "an account is one, whatever is said of it"


def test_a_suppression_holds_until_it_ends_or_is_removed(store: Ledger, desk: ReviewDesk, store_folder: Path) -> None:
    until = datetime.now(UTC).replace(microsecond=0) + 5 * HOUR
    asked = Suppression(scope="domain", key="example.org", owner="trust team", why="a mailing", begins_at=AS_OF, until=until)
    made = desk.suppress("abuse", asked, by="ann")
    assert made.begins_at > datetime.now(UTC) - HOUR, "it never began in the past"
    assert open_reader(store_folder).suppressions("abuse") == (made,)
    assert open_reader(store_folder).suppressions("other") == ()
    assert desk.unsuppress("abuse", "domain", "example.org", by="bob") == 1
    (ended,) = open_reader(store_folder).suppressions("abuse")
    assert made.begins_at <= ended.until < until
    with pytest.raises(Refused, match="suppression_unknown"):
        desk.unsuppress("abuse", "domain", "example.org", by="bob")
    with pytest.raises(ValueError, match="ends after now"):
        desk.suppress("abuse", asked.model_copy(update={"until": AS_OF}), by="ann")
