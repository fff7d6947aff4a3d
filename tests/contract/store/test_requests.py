"""What people ask of a run: one is first, its driver sees it, nobody takes the run up unasked, and the audit trail knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchscore.audit import Act
from batchscore.errors import Cancelled, Fenced, Paused, Refused
from batchscore.ports import RunHandle
from batchscore.store import Ledger, open_reader
from tests.contract.store.conftest import OpenStore, make_plan


def opened(store: Ledger, folder: Path) -> RunHandle:
    return store.open(make_plan(folder), owner="elsewhere:1:1")[0]


def test_a_request_says_who_when_and_why_and_whether_the_driver_saw_and_met_it(store: Ledger, store_folder: Path) -> None:
    run = opened(store, store_folder)
    assert store.reader().requested(run.run_id) is None
    row = store.request(run.run_id, "paused", number=0, by="Ada", why="the database is slow")
    asked = open_reader(store_folder).requested(run.run_id)
    assert asked is not None
    assert row.request == asked
    assert (asked.wish, asked.number, asked.by, asked.why) == ("paused", 1, "Ada", "the database is slow")
    assert (asked.seen_at, asked.met_at, row.stands) == (None, None, "pausing")
    store.note_request(run, asked.number, met=False)
    store.note_request(run, asked.number + 1, met=True)  # of another request: nothing
    seen = store.reader().run(run.run_id).request
    assert seen is not None
    assert seen.seen_at is not None
    assert seen.met_at is None
    store.note_request(run, asked.number, met=True)
    row = store.reader().run(run.run_id)
    assert row.request is not None
    assert row.request.seen_at == seen.seen_at, "seen once"
    assert (row.state, row.stands) == ("running", "paused")
    assert store.request(run.run_id, None, number=1, by="Bob", why="").request is None
    told = [(entry.act, entry.who) for entry, _ in open_reader(store_folder).audit(run.run_id)]
    assert told == [(Act.PAUSED, "Ada"), (Act.CONTINUED, "Bob")]


def test_who_saw_an_older_request_is_refused(store: Ledger, store_folder: Path) -> None:
    run = opened(store, store_folder)
    store.request(run.run_id, "paused", number=0, by="Ada", why="")
    with pytest.raises(Refused, match=r"nothing_to_control.*Ada was first"):
        store.request(run.run_id, "cancelled", number=0, by="Bob", why="")
    store.request(run.run_id, "cancelled", number=1, by="Bob", why="")


def test_a_driver_writes_on_under_a_request_until_it_has_drained(store: Ledger, store_folder: Path) -> None:
    run = opened(store, store_folder)
    store.request(run.run_id, "cancelled", number=0, by="Ada", why="")
    store.note_waiting(run, "draining")
    row = store.close(run, "cancelled", "cancelled by Ada")
    assert (row.state, row.stands) == ("cancelled", "cancelled")


@pytest.mark.parametrize(("wish", "error"), [("paused", Paused), ("cancelled", Cancelled)])
def test_a_run_that_nobody_drives_is_taken_up_by_nobody(
    wish: str, error: type[Exception], store: Ledger, store_folder: Path
) -> None:
    run = opened(store, store_folder)
    store.close(run, "interrupted")
    row = store.request(run.run_id, "paused" if wish == "paused" else "cancelled", number=0, by="Ada", why="")
    assert row.stands == wish
    assert row.request is not None
    assert row.request.met_at is not None
    with pytest.raises(error, match=f"the run is {wish} by Ada"):
        store.open(make_plan(store_folder), owner="me")
    row = store.request(run.run_id, None, number=1, by="Ada", why="")
    assert (row.state, row.stands) == ("interrupted", "interrupted")
    again, _ = store.open(make_plan(store_folder), owner="me")
    assert (again.run_id, again.epoch) == (run.run_id, 2)


def test_a_cancelled_run_is_passed_over_by_its_next_generation_and_a_paused_one_is_not(store: Ledger, store_folder: Path) -> None:
    run = opened(store, store_folder)
    store.close(run, "interrupted")
    store.request(run.run_id, "paused", number=0, by="Ada", why="")
    with pytest.raises(Paused):
        store.open(make_plan(store_folder), owner="me", again=True)
    store.request(run.run_id, "cancelled", number=1, by="Ada", why="")
    _, row = store.open(make_plan(store_folder), owner="me", again=True)
    assert row.generation == 2
    assert row.request is None


def test_a_driver_that_is_only_slow_is_fenced_by_what_was_asked_meanwhile(open_again: OpenStore, store_folder: Path) -> None:
    slow = open_again(lease_s=0.0)
    run = opened(slow, store_folder)
    row = slow.request(run.run_id, "paused", number=0, by="Ada", why="")
    assert (row.state, row.stands) == ("paused", "paused")
    with pytest.raises(Fenced):
        slow.note_waiting(run, "late")


def test_a_finished_run_is_asked_nothing(store: Ledger, store_folder: Path) -> None:
    run = opened(store, store_folder)
    store.request(run.run_id, "cancelled", number=0, by="Ada", why="")  # it came too late
    row = store.close(run, "finished")
    assert (row.stands, row.request) == ("finished", None)
    with pytest.raises(Refused, match=r"nothing_to_control.*finished"):
        store.request(run.run_id, "paused", number=1, by="Ada", why="")
