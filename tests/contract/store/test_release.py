"""Release: all of a run's flags at once or none, one open flag per account and queue, ids to the last bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchscore.desk import Opinion
from batchscore.errors import Refused
from batchscore.flag import AccountId, Disposition, Flag
from batchscore.keys import IdKind
from batchscore.ports import ReleaseCount, RunHandle, RunRow
from batchscore.store import Ledger, flags, open_desk, open_reader
from tests.contract.store.conftest import OpenStore, make_flag, make_plan
from tests.past_flags import past_flags


def opened(store: Ledger, folder: Path, name: str = "weekly") -> RunHandle:
    return store.open(make_plan(folder, name=name), owner="me")[0]


def asking(store: Ledger, folder: Path) -> RunRow:
    """A run of another spec, which sees every flag."""
    return store.open(make_plan(folder, name="asking"), owner="me")[1]


def flags_of(run: RunHandle, *ids: AccountId, queue: str = "abuse") -> Iterator[Flag]:
    return iter([make_flag(account_id, run_id=run.run_id, queue=queue, rank=rank + 1) for rank, account_id in enumerate(ids)])


def test_a_released_flag_is_read_back_as_it_was(store: Ledger, store_folder: Path) -> None:
    run = opened(store, store_folder)
    assert store.release(run, flags_of(run, 7)) == ReleaseCount(n_flags=1, n_overtaken=0)
    (row,) = store.reader().queue("abuse", limit=10)
    assert row.flag == make_flag(7, run_id=run.run_id)
    assert row.state == "open"
    assert store.reader().run(run.run_id).released_at == row.released_at


@pytest.mark.parametrize(
    ("kind", "ids"),
    [
        ("integer", [0, 1, 2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1]),
        ("string", ["", "0", "00", " a", "a ", "A", "a", "e\u0301", "\u00e9", "\U0001f4e7", "x" * 255]),
    ],
)
def test_ids_are_exact_and_no_two_are_ever_taken_for_one(
    open_again: OpenStore, store_folder: Path, kind: IdKind, ids: list[AccountId]
) -> None:
    store = open_again(kind)
    run = opened(store, store_folder)
    assert store.release(run, flags_of(run, *ids)).n_flags == len(ids)
    assert [row.flag.account_id for row in store.reader().queue(None, limit=100)] == ids
    assert {past.account_id for past in past_flags(store.reader(), "abuse", asking(store, store_folder))} == set(ids)


@pytest.mark.parametrize("kind", ["integer", "string"])
def test_an_id_the_database_cannot_hold_is_refused_and_not_told(
    open_again: OpenStore, database: str, store_folder: Path, kind: IdKind
) -> None:
    largest = 2**64 - 1 if database == "mysql" else 2**63 - 1
    fits, too_large = (largest, largest + 1) if kind == "integer" else ("ä" * 127, "ä" * 128)
    store = open_again(kind)
    run = opened(store, store_folder)
    with pytest.raises(Refused, match="id_too_large") as refusal:
        store.release(run, flags_of(run, too_large))
    assert str(too_large) not in str(refusal.value)
    assert store.reader().queue(None, limit=10) == ()
    store.release(run, flags_of(run, fits))
    assert [row.flag.account_id for row in store.reader().queue(None, limit=10)] == [fits]


def test_releasing_twice_changes_nothing_and_says_the_same(store: Ledger, store_folder: Path) -> None:
    run = opened(store, store_folder)
    first = store.release(run, flags_of(run, 1, 2, 3))
    released_at = store.reader().run(run.run_id).released_at
    assert store.release(run, flags_of(run, 1, 2, 3)) == first
    assert store.reader().run(run.run_id).released_at == released_at


def test_an_account_that_is_open_already_stays_with_its_flag(store: Ledger, store_folder: Path) -> None:
    first, second = opened(store, store_folder, "first"), opened(store, store_folder, "second")
    store.release(first, flags_of(first, 1, 2))
    assert store.release(second, flags_of(second, 2, 3)) == ReleaseCount(n_flags=1, n_overtaken=1)
    found = {row.flag.account_id: row.flag.run_id for row in store.reader().queue(None, limit=10)}
    assert found == {1: first.run_id, 2: first.run_id, 3: second.run_id}


def test_queues_do_not_know_each_other(store: Ledger, store_folder: Path) -> None:
    first, second = opened(store, store_folder, "first"), opened(store, store_folder, "second")
    store.release(first, flags_of(first, 1, queue="abuse"))
    assert store.release(second, flags_of(second, 1, queue="signup")) == ReleaseCount(n_flags=1, n_overtaken=0)
    assert [row.flag.queue for row in store.reader().queue("signup", limit=10)] == ["signup"]


def test_memory_holds_only_what_was_released_by_others(store: Ledger, store_folder: Path) -> None:
    first, second = opened(store, store_folder, "first"), opened(store, store_folder, "second")
    before = datetime.now(UTC)
    store.release(first, flags_of(first, 2, 1))
    past = list(past_flags(store.reader(), "abuse", store.reader().run(second.run_id)))
    assert [flag.account_id for flag in past] == [1, 2]
    assert all(abs((flag.opened_at - before).total_seconds()) < 60 and flag.closed_at is None for flag in past)
    assert list(past_flags(store.reader(), "abuse", store.reader().run(first.run_id))) == []
    assert list(past_flags(store.reader(), "other", store.reader().run(second.run_id))) == []


class Crash(Exception):
    """Stands for the driver's death between two transactions."""


def test_a_crash_at_any_point_of_release_shows_nothing_and_the_next_try_gives_all(
    open_again: OpenStore, store_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flags, "ROWS_A_TRANSACTION", 3)
    monkeypatch.setattr(flags, "ROWS_A_STATEMENT", 2)
    ids = list(range(10))
    for crash_at in range(len(ids)):
        store = open_again()
        run = opened(store, store_folder, f"crash-{crash_at}")

        def dying(crash_at: int = crash_at, run: RunHandle = run) -> Iterator[Flag]:
            for number, flag in enumerate(flags_of(run, *ids, queue=f"q{crash_at}")):
                if number == crash_at:
                    raise Crash
                yield flag

        with pytest.raises(Crash):
            store.release(run, dying())
        assert open_reader(store_folder).queue(f"q{crash_at}", limit=20) == ()
        assert store.reader().run(run.run_id).released_at is None
        again = open_again()
        taken, _ = again.open(make_plan(store_folder, name=f"crash-{crash_at}"), owner="me")
        assert again.release(taken, flags_of(taken, *ids, queue=f"q{crash_at}")) == ReleaseCount(n_flags=10, n_overtaken=0)
        assert [row.flag.account_id for row in open_reader(store_folder).queue(f"q{crash_at}", limit=20)] == ids


DYING = """
import os, signal, sys
from pathlib import Path
from batchscore.store import flags, open_store
from tests.contract.store.conftest import make_flag, make_plan
flags.ROWS_A_TRANSACTION = 100
folder = Path(sys.argv[1])
store = open_store(folder, "integer", lease_s=0.1)
run, _ = store.open(make_plan(folder), owner="dying")
def all_flags():
    for number in range(1000):
        if number == 550:
            os.kill(os.getpid(), signal.SIGKILL)
        yield make_flag(number, run_id=run.run_id, rank=number + 1)
store.release(run, all_flags())
"""


def test_a_driver_killed_inside_release_leaves_nothing_to_see(open_again: OpenStore, store_folder: Path) -> None:
    open_again()
    child = subprocess.run([sys.executable, "-c", DYING, str(store_folder)], check=False, cwd=Path(__file__).parents[3])
    assert child.returncode == -signal.SIGKILL
    assert open_reader(store_folder).queue(None, limit=10) == ()
    store = open_again()
    run = None
    while run is None:
        try:
            run, _ = store.open(make_plan(store_folder), owner=f"next:{os.getpid()}")
        except Refused as refusal:
            assert refusal.reason == "run_taken"
    assert store.release(run, flags_of(run, *range(1000))) == ReleaseCount(n_flags=1000, n_overtaken=0)
    assert [row.flag.account_id for row in store.reader().queue(None, limit=2000)] == list(range(1000))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sets(st.integers(0, 12), max_size=8), st.sampled_from(["a", "b"])), min_size=1, max_size=5))
def test_an_account_never_has_two_open_flags_in_a_queue(
    tmp_path_factory: pytest.TempPathFactory, releases: list[tuple[set[int], str]]
) -> None:
    from batchscore.store import open_store

    folder = tmp_path_factory.mktemp("store")
    store = open_store(folder, "integer")
    expected: dict[tuple[str, int], str] = {}
    for number, (ids, queue) in enumerate(releases):
        run = opened(store, folder, f"run-{number}")
        count = store.release(run, flags_of(run, *sorted(ids), queue=queue))
        assert count.n_flags + count.n_overtaken == len(ids)
        for account_id in ids:
            expected.setdefault((queue, account_id), run.run_id)
    rows = store.reader().queue(None, limit=1000)
    assert {(row.flag.queue, row.flag.account_id): row.flag.run_id for row in rows} == expected
    assert len(rows) == len(expected)


def test_no_error_of_the_database_holds_an_account_id(store: Ledger, store_folder: Path) -> None:
    run = opened(store, store_folder)
    twice = [make_flag(424242, run_id=run.run_id), make_flag(424242, run_id=run.run_id)]
    with pytest.raises(Exception, match="database") as failure:
        store.release(run, iter(twice))
    assert "424242" not in str(failure.value)
    assert failure.value.__cause__ is None


def test_flags_of_a_run_that_stopped_inside_its_release_give_way_and_do_not_come_back(
    store: Ledger, store_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = opened(store, store_folder, "first"), opened(store, store_folder, "second")
    monkeypatch.setattr(flags, "ROWS_A_TRANSACTION", 2)
    with pytest.raises(Crash):
        store.release(first, _crashing(flags_of(first, 1, 2, 3, 4), after=3))
    store.close(first, "interrupted")
    assert store.release(second, flags_of(second, 1, 4)) == ReleaseCount(n_flags=2, n_overtaken=0)
    first, _ = store.open(make_plan(store_folder, name="first"), owner="me")
    assert store.release(first, flags_of(first, 1, 2, 3, 4)) == ReleaseCount(n_flags=2, n_overtaken=2)
    found = {row.flag.account_id: row.flag.run_id for row in store.reader().queue(None, limit=10)}
    assert found == {1: second.run_id, 2: first.run_id, 3: first.run_id, 4: second.run_id}


def test_what_a_person_closed_is_not_put_before_them_again_for_the_same_as_of(store: Ledger, store_folder: Path) -> None:
    first, second = opened(store, store_folder, "first"), opened(store, store_folder, "second")
    store.release(first, flags_of(first, 1, 2))
    open_desk(store_folder).decide([Opinion(queue="abuse", account_id=1, disposition=Disposition.CLEARED, by="ann")])
    assert store.release(second, flags_of(second, 1, 3)) == ReleaseCount(n_flags=1, n_overtaken=1, n_decided_kept=1)
    assert {row.flag.account_id for row in store.reader().queue(None, limit=10)} == {2, 3}


def test_memory_does_not_hold_the_answer_to_the_same_question(store: Ledger, store_folder: Path) -> None:
    first, _ = store.open(make_plan(store_folder, world="a"), owner="me")
    store.release(first, flags_of(first, 1, 2))
    _, again = store.open(make_plan(store_folder, world="b"), owner="me")
    assert list(past_flags(store.reader(), "abuse", again)) == []


def _crashing(flags: Iterator[Flag], *, after: int) -> Iterator[Flag]:
    for number, flag in enumerate(flags):
        if number == after:
            raise Crash
        yield flag
