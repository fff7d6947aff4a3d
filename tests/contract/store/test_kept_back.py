"""What people wrote after a run decided, and before reviewers see its flags: the account is recorded, and before nobody."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal

import pytest

from batchscore.desk import Happened
from batchscore.failpoints import Point
from batchscore.flag import Disposition, Flag, ReleasedAs, WrittenFlag
from batchscore.ports import MemoryRead, ReleaseCount, RunHandle, Suppression
from batchscore.store import Ledger, ReviewDesk, audit, flags, open_desk, open_reader
from tests.contract.store.at_the_desk import says
from tests.contract.store.conftest import AS_OF, OpenStore, make_flag, make_plan

DAY = timedelta(days=1)
Scope = Literal["account", "domain", "segment"]
SUPPRESSED: Final[list[tuple[Scope, str]]] = [("account", "1"), ("domain", "x.org"), ("segment", "de")]


def suppress(desk: ReviewDesk, scope: Scope, key: str) -> None:
    until = datetime.now(UTC) + DAY
    asked = Suppression(scope=scope, key=key, owner="trust team", why="a test", begins_at=AS_OF, until=until)
    desk.suppress("abuse", asked, by="ann")


def decided(store: Ledger, folder: Path, name: str) -> RunHandle:
    return store.open(make_plan(folder, name=name), owner="me")[0]


def written(run: RunHandle, account_id: int | str, domain: str | None = None, segment: str | None = None) -> WrittenFlag:
    flag = make_flag(account_id, run_id=run.run_id)
    held = {name: getattr(flag, name) for name in type(flag).model_fields if name != "reasons"}
    return WrittenFlag(**held, reasons_json=flag.reasons_json, domain=domain, segment=segment)


def shown(folder: Path) -> set[int | str]:
    return {row.flag.account_id for row in open_reader(folder).queue(None, limit=100)}


def kinds(folder: Path, run: RunHandle) -> dict[int | str, str]:
    return {row.flag.account_id: row.released_as.value for row in open_reader(folder).flags(run.run_id)}


def test_a_suppression_since_the_decision_keeps_account_domain_and_segment_back(store: Ledger, store_folder: Path) -> None:
    desk = open_desk(store_folder)
    before = decided(store, store_folder, "before")
    store.release(before, iter([make_flag(5, run_id=before.run_id)]))
    run = decided(store, store_folder, "first")
    for scope, key in SUPPRESSED:
        suppress(desk, scope, key)
    suppress(desk, "account", "5")
    for nobody in ("01", str(2**63), "9" * 100):
        suppress(desk, "account", nobody)
    suppress(desk, "domain", "y.org")
    assert desk.unsuppress("abuse", "domain", "y.org", by="ann") == 1
    made = [written(run, 1), written(run, 2, "y.org", "at"), written(run, 3, "x.org"), written(run, 4, "y.org", "de")]
    adds = [written(run, 5, "y.org")]
    count = store.release(run, iter(made), adds)
    assert count == ReleaseCount(n_flags=1, n_overtaken=0, n_suppressed=4)
    assert store.release(run, iter(made), adds) == count
    assert shown(store_folder) == {2, 5}
    assert kinds(store_folder, run) == {1: "suppressed", 2: "opened", 3: "suppressed", 4: "suppressed", 5: "suppressed"}
    told = [(event.account_id, event.act) for event in open_reader(store_folder).events(1, limit=10)]
    assert told == [
        (1, Happened.SUPPRESSED), (2, Happened.OPENED), (3, Happened.SUPPRESSED), (4, Happened.SUPPRESSED),
        (5, Happened.SUPPRESSED),
    ], "in the order of keys, whatever came of them; then what the run adds"  # fmt: skip
    assert open_reader(store_folder).account_flags("abuse", 1) == ()
    undone = store.undo(run.run_id, by="cid", why="a test")
    assert (undone.n_withdrawn, shown(store_folder)) == (1, {5})
    after = decided(store, store_folder, "after")
    assert store.release(after, iter([make_flag(2, run_id=after.run_id)])).n_flags == 1


def test_a_suppression_that_comes_while_flags_are_inserted_holds_for_those_that_are_in_already(
    open_again: OpenStore, store_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flags, "ROWS_A_TRANSACTION", 1)
    store = open_again("string")
    run = decided(store, store_folder, "slow")
    read_at = store.reader().clock()

    def slowly() -> Iterator[WrittenFlag]:
        yield written(run, "a", "x.org")
        yield written(run, "b", "y.org")
        suppress(open_desk(store_folder), "account", "a")
        suppress(open_desk(store_folder), "domain", "y.org")
        yield written(run, "c", "z.org")

    count = store.release(run, slowly(), (), MemoryRead(read_at))
    assert count == ReleaseCount(n_flags=1, n_overtaken=0, n_suppressed=2)
    assert shown(store_folder) == {"c"}


def test_of_a_reserve_too_whoever_is_suppressed_by_now_is_kept_back(store: Ledger, store_folder: Path) -> None:
    run = decided(store, store_folder, "first")
    store.release(run, iter([make_flag(1, run_id=run.run_id)]))
    suppress(open_desk(store_folder), "account", "2")
    more = [make_flag(account_id, run_id=run.run_id) for account_id in (2, 3)]
    assert store.release_more(run.run_id, iter(more), by="cron") == ReleaseCount(n_flags=1, n_overtaken=0, n_suppressed=1)
    assert shown(store_folder) == {1, 3}


@pytest.mark.parametrize("by_events", [True, False], ids=["", "memory of an earlier release"])
def test_what_a_person_decided_since_the_run_read_its_memory_stays(store: Ledger, store_folder: Path, *, by_events: bool) -> None:
    desk = open_desk(store_folder)

    first = decided(store, store_folder, "first")
    store.release(first, iter([make_flag(account_id, run_id=first.run_id) for account_id in (1, 2, 3)]))
    desk.decide([says(1), says(2)])
    reader = store.reader()
    read = MemoryRead(reader.clock(), reader.newest_event() if by_events else None)
    desk.decide([says(2, by="bob", disposition=Disposition.CONFIRMED, correct=True), says(3)])
    run = decided(store, store_folder, "second")
    later: list[Flag] = [
        make_flag(account_id, run_id=run.run_id).model_copy(update={"as_of": AS_OF + DAY}) for account_id in (1, 2)
    ]
    adds = [make_flag(3, run_id=run.run_id).model_copy(update={"as_of": AS_OF + DAY})]
    count = store.release(run, iter(later), adds, read)
    assert count == ReleaseCount(n_flags=1, n_overtaken=2, n_decided_kept=2)
    assert (shown(store_folder), kinds(store_folder, run)[2]) == ({1}, ReleasedAs.KEPT)


def test_a_decision_that_was_under_way_while_the_run_read_its_memory_stays_too(
    store: Ledger, store_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was recorded at an earlier moment, and memory saw nothing of it: its transaction ended later."""
    first = decided(store, store_folder, "first")
    store.release(first, iter([make_flag(1, run_id=first.run_id)]))
    reader = open_reader(store_folder)
    read: list[MemoryRead] = []

    def meanwhile(point: Point) -> None:
        if point is Point.AUDIT_APPENDING and not read:
            read.append(MemoryRead(reader.clock(), reader.newest_event()))

    monkeypatch.setattr(audit, "reach", meanwhile)
    open_desk(store_folder).decide([says(1)])
    monkeypatch.undo()
    run = decided(store, store_folder, "second")
    later = make_flag(1, run_id=run.run_id).model_copy(update={"as_of": AS_OF + DAY})
    count = store.release(run, iter([later]), (), read[0])
    assert count == ReleaseCount(n_flags=0, n_overtaken=1, n_decided_kept=1)


def test_what_opens_beyond_the_budget_in_the_place_of_a_withdrawn_flag_is_counted(store: Ledger, store_folder: Path) -> None:
    first = decided(store, store_folder, "first")
    store.release(first, iter([make_flag(1, run_id=first.run_id)]))
    store.undo(first.run_id, by="cid", why="a test")
    run = decided(store, store_folder, "second")
    count = store.release(run, iter([make_flag(2, run_id=run.run_id)]), [make_flag(1, run_id=run.run_id)])
    assert count == ReleaseCount(n_flags=2, n_overtaken=0, n_instead=1)
    assert {event.act for event in open_reader(store_folder).events(2, limit=10)} == {Happened.OPENED}
    assert kinds(store_folder, run) == {1: "instead", 2: "opened"}
    assert store.undo(run.run_id, by="cid", why="a test").n_withdrawn == 2
