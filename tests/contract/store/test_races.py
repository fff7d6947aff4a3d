"""Two at once: drivers of one run, undos of one run, an undo and a release. One order of the two comes out, whichever it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from batchscore.audit import BEGINNING
from batchscore.errors import Fenced, Refused
from batchscore.plan import Partition, Plan, Stage
from batchscore.ports import RunHandle
from batchscore.store import Ledger, flags, undo
from tests.contract.store.conftest import OpenStore, make_flag, make_partitions, make_plan, make_receipt

N_RACES = 100
N_UNDO_RACES = 10


def test_two_drivers_race_a_hundred_times_for_a_run_and_the_loser_says_who_has_it(
    open_again: OpenStore, store_folder: Path
) -> None:
    """Guarantee 4, first half: whoever loses is told the winner's name."""
    rivals = [open_again(), open_again()]
    with ThreadPoolExecutor(2) as pool:
        for number in range(N_RACES):
            plan, barrier = make_plan(store_folder, name=f"race-{number}"), threading.Barrier(2)

            def race(n: int, plan: Plan = plan, barrier: threading.Barrier = barrier) -> RunHandle | Refused:
                barrier.wait()
                try:
                    return rivals[n].open(plan, owner=f"driver-{n}")[0]
                except Refused as refusal:
                    return refusal

            (winner,), (loser,) = _by_kind(pool.map(race, range(2)))
            assert loser.reason == "run_taken"
            assert loser.what.startswith(f"{winner.owner} has this run until")


def test_a_driver_that_lost_its_run_commits_nothing_in_a_hundred_races(open_again: OpenStore, store_folder: Path) -> None:
    """Guarantee 4, second half: both commit at once, the older under an epoch that has passed, and none of it stands."""
    old, new = open_again(lease_s=0.0), open_again()
    partitions = make_partitions(N_RACES)
    handle, _ = old.open(make_plan(store_folder), owner="old")
    old.lay_out(handle, Stage.ROLLUP, partitions)
    n_old = 0
    with ThreadPoolExecutor(2) as pool:
        for partition in partitions:
            (before, _), barrier = old.open(make_plan(store_folder), owner="old"), threading.Barrier(2)

            def late(before: RunHandle = before, barrier: threading.Barrier = barrier, of: Partition = partition) -> bool:
                barrier.wait()
                try:
                    return bool(old.commit(before, [make_receipt(of, attempt="old")]))
                except Fenced:
                    return False

            def taking_over(barrier: threading.Barrier = barrier) -> RunHandle:
                barrier.wait()
                return new.open(make_plan(store_folder), owner="new")[0]

            committed, after = pool.submit(late), pool.submit(taking_over).result()
            was_in_time = committed.result()  # before the epoch was raised, or not at all
            n_old += was_in_time
            assert bool(new.commit(after, [make_receipt(partition, attempt="new")])) is not was_in_time, "one of the two, once"
            with pytest.raises(Fenced):
                old.commit(before, [make_receipt(partition, attempt="old")])
            new.close(after, "interrupted")
    receipts = list(new.reader().receipts(handle.run_id, Stage.ROLLUP))
    assert len(receipts) == N_RACES
    assert sum(receipt.attempt == "old" for receipt in receipts) == n_old


def _by_kind(outcomes: Iterable[RunHandle | Refused]) -> tuple[list[RunHandle], list[Refused]]:
    found = list(outcomes)
    return [one for one in found if isinstance(one, RunHandle)], [one for one in found if isinstance(one, Refused)]


def at_once(*works: Callable[[], object]) -> None:
    """Do all of them, begun together."""
    barrier = threading.Barrier(len(works))

    def begun(work: Callable[[], object]) -> object:
        barrier.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        for future in [pool.submit(begun, work) for work in works]:
            future.result()


def shown(store: Ledger) -> dict[int | str, str]:
    return {row.flag.account_id: row.flag.run_id for row in store.reader().queue(None, limit=10_000)}


def opened(store: Ledger, folder: Path, name: str) -> RunHandle:
    return store.open(make_plan(folder, name=name), owner="me")[0]


def release(store: Ledger, run: RunHandle, ids: Iterable[int]) -> None:
    store.release(run, iter([make_flag(account_id, run_id=run.run_id, rank=n + 1) for n, account_id in enumerate(ids)]))


@pytest.fixture
def rivals(open_again: OpenStore, monkeypatch: pytest.MonkeyPatch) -> tuple[Ledger, Ledger]:
    """Two stores on one database, whose releases and undos take several transactions."""
    monkeypatch.setattr(undo, "ACCOUNTS_A_TRANSACTION", 2)
    monkeypatch.setattr(flags, "ROWS_A_TRANSACTION", 2)
    return open_again(), open_again()


def require_whole_trail(store: Ledger) -> None:
    digest = BEGINNING
    for entry, held in store.reader().audit():
        digest = entry.chained(digest)
        assert digest == held
    assert store.reader().audit_head()[1] == digest


def test_two_undos_at_once_do_it_once(rivals: tuple[Ledger, Ledger], store_folder: Path) -> None:
    one, other = rivals
    for number in range(N_UNDO_RACES):
        base = 100 * number
        run, heir = opened(one, store_folder, f"run-{number}"), opened(one, store_folder, f"heir-{number}")
        release(one, run, range(base, base + 7))
        release(one, heir, range(base + 3, base + 7))
        at_once(
            partial(one.undo, run.run_id, by="ann", why="x"),
            partial(other.undo, run.run_id, by="bob", why="y"),
        )
        done = one.reader().undo(run.run_id)
        assert (done.n_withdrawn, done.n_restored) == (7, 4)
        assert done.undone_at is not None
        acts = [entry.act for entry, _ in one.reader().audit() if entry.run_id == run.run_id]
        assert {act: acts.count(act) for act in set(acts)} == {
            "released": 1, "undo begun": 1, "withdrawn": 7, "restored": 4, "undone": 1
        }  # fmt: skip
        assert {account: by for account, by in shown(one).items() if by == run.run_id} == {}
    require_whole_trail(one)


def test_an_undo_and_a_release_at_once_end_as_if_the_undone_run_had_never_been(
    rivals: tuple[Ledger, Ledger], store_folder: Path
) -> None:
    one, other = rivals
    for number in range(N_UNDO_RACES):
        base = 100 * number
        run, later = opened(one, store_folder, f"run-{number}"), opened(other, store_folder, f"later-{number}")
        release(one, run, range(base, base + 7))
        at_once(
            partial(one.undo, run.run_id, by="ann", why="x"),
            partial(release, other, later, range(base + 2, base + 9)),
        )
        here = {account: by for account, by in shown(one).items() if base <= int(account) < base + 100}
        assert here == dict.fromkeys(range(base + 2, base + 9), later.run_id)
    require_whole_trail(one)
