"""Holds and approvals: what is approved is exactly what was held for, by one person, once."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from batchscore.digest import digest_of
from batchscore.errors import Fenced, Refused
from batchscore.hold import Finding, findings_digest
from batchscore.plan import Stage
from batchscore.ports import RunHandle
from batchscore.store import Ledger, open_reader
from tests.contract.store.conftest import make_partitions, make_plan

FEW = Finding(of="mails", day=date(2026, 1, 14), n=3, low=100, high=400, what="fewer rows than usual")
NONE = Finding(of="logins", day=date(2026, 1, 14), n=0, what="no rows")


def hold(store: Ledger, folder: Path, *findings: Finding, name: str = "weekly") -> RunHandle:
    run, _ = store.open(make_plan(folder, name=name), owner="me")
    store.hold(run, "input", findings, "held for input")
    return run


def test_a_held_run_says_what_it_is_held_for_and_its_driver_is_out(store: Ledger, store_folder: Path) -> None:
    run = hold(store, store_folder, FEW, NONE)
    row = open_reader(store_folder).run(run.run_id)
    (held,) = open_reader(store_folder).holds(run.run_id)
    assert (row.state, row.why) == ("held", "held for input")
    assert (held.subject, held.findings, held.approved_by) == ("input", (FEW, NONE), None)
    with pytest.raises(Fenced):
        store.lay_out(run, Stage.SCORE, make_partitions(1))
    with pytest.raises(Fenced):
        store.hold(run, "input", [NONE], "")


def test_an_approval_names_who_and_why_and_counts_for_every_run_of_the_spec(store: Ledger, store_folder: Path) -> None:
    run = hold(store, store_folder, FEW)
    (held,) = store.reader().holds(run.run_id)
    assert store.reader().approved("weekly", "input") == ()
    given = store.approve(held, by="Ada", because="a holiday")
    assert (given.approved_by, given.approved_because, given.findings) == ("Ada", "a holiday", (FEW,))
    assert given.approved_at is not None
    assert store.reader().holds(run.run_id) == (given,)
    assert store.reader().approved("weekly", "input") == (FEW,)
    assert store.reader().approved("daily", "input") == ()


def test_only_the_first_approval_of_a_hold_counts(store: Ledger, store_folder: Path) -> None:
    run = hold(store, store_folder, FEW)
    (held,) = store.reader().holds(run.run_id)
    store.approve(held, by="Ada", because="")
    with pytest.raises(Refused, match=r"not_held.*Ada has approved this already"):
        store.approve(held, by="Bob", because="")
    assert store.reader().holds(run.run_id)[0].approved_by == "Ada"


def test_what_a_run_is_not_held_for_any_more_is_not_approved(store: Ledger, store_folder: Path) -> None:
    run = hold(store, store_folder, FEW)
    (first,) = store.reader().holds(run.run_id)
    hold(store, store_folder, FEW, NONE)
    with pytest.raises(Refused, match=r"not_held.*something else"):
        store.approve(first, by="Ada", because="")
    _, second = store.reader().holds(run.run_id)
    store.approve(second, by="Ada", because="")


def test_a_run_that_is_resumed_unapproved_is_held_by_the_same_hold(store: Ledger, store_folder: Path) -> None:
    run = hold(store, store_folder, FEW)
    (before,) = store.reader().holds(run.run_id)
    hold(store, store_folder, FEW)
    (after,) = store.reader().holds(run.run_id)
    assert after.digest == before.digest
    assert after.held_at >= before.held_at


def test_a_run_that_is_not_held_cannot_be_approved(store: Ledger, store_folder: Path) -> None:
    run = hold(store, store_folder, FEW)
    (held,) = store.reader().holds(run.run_id)
    store.open(make_plan(store_folder), owner="me")
    with pytest.raises(Refused, match=r"not_held.*the run is running"):
        store.approve(held, by="Ada", because="")


def test_findings_of_an_earlier_release_are_read_and_stay_approved() -> None:
    """A ledger may hold them under an earlier name; the digest, which an approval speaks of, is what it was then."""
    held = FEW.model_dump(mode="json")
    held["verdict"] = held.pop("what")
    assert Finding.model_validate(held) == FEW
    assert findings_digest([FEW]) == digest_of([held])
