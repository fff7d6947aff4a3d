"""Undo: the queue as if the run had never been, except where a person was first; whole or not begun, to whoever looks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchscore.audit import BEGINNING, account_digest
from batchscore.database import transact
from batchscore.desk import Opinion
from batchscore.errors import Refused
from batchscore.flag import Disposition
from batchscore.ports import LeftFlag, RunHandle, Undo
from batchscore.store import Ledger, flags, open_desk, open_reader, open_store, undo
from batchscore.store.audit import KEY, audit_key
from batchscore.store.tables import audit_head
from tests.contract.store.conftest import OpenStore, make_flag, make_plan
from tests.dba import dba_engine
from tests.past_flags import past_flags


class Cut(Exception):
    """Stands for the death of the process between two transactions."""


def released(store: Ledger, folder: Path, name: str, *ids: int | str) -> RunHandle:
    run, _ = store.open(make_plan(folder, name=name), owner="me")
    store.release(run, iter([make_flag(account_id, run_id=run.run_id, rank=n + 1) for n, account_id in enumerate(ids)]))
    store.close(run, "finished")
    return run


def shown(folder: Path) -> dict[int | str, str]:
    return {row.flag.account_id: row.flag.run_id for row in open_reader(folder).queue(None, limit=10_000)}


def remembered(store: Ledger, folder: Path) -> set[int | str]:
    """What a run of another spec, that asks now, takes for flagged and not closed."""
    _, asking = store.open(make_plan(folder, name="asking"), owner="me")
    return {past.account_id for past in past_flags(store.reader(), "abuse", asking)}


def execute(folder: Path, statement: str, **values: Any) -> Any:
    with dba_engine(folder).begin() as connection:
        return connection.execute(sa.text(statement), values)


def undone(store: Ledger, run: RunHandle) -> Undo:
    return store.undo(run.run_id, by="ann@host", why="wrong threshold")


def test_flags_are_withdrawn_and_say_when_by_whom_and_why(store: Ledger, store_folder: Path) -> None:
    run = released(store, store_folder, "first", 1, 2, 3)
    done = undone(store, run)
    assert (done.n_withdrawn, done.n_restored, done.left) == (3, 0, ())
    assert shown(store_folder) == {}
    assert store.reader().flag_states(run.run_id) == {"withdrawn": 3}
    row = store.reader().run(run.run_id)
    assert (row.undone_by, row.undone_why) == ("ann@host", "wrong threshold")
    assert row.undo_begun_at is not None
    assert row.undone_at is not None
    assert abs(row.undone_at - datetime.now(UTC)) < timedelta(seconds=60)


def test_looking_at_an_undo_changes_nothing_and_tells_what_it_would_do(store: Ledger, store_folder: Path) -> None:
    run, later = released(store, store_folder, "first", 1, 2, 3), released(store, store_folder, "later", 3, 4)
    looked = open_reader(store_folder).undo(run.run_id)
    assert (looked.n_withdrawn, looked.n_restored, looked.undone_at) == (3, 1, None)
    assert shown(store_folder) == {1: run.run_id, 2: run.run_id, 3: run.run_id, 4: later.run_id}
    done = undone(store, run)
    assert (done.n_withdrawn, done.n_restored, done.left) == (looked.n_withdrawn, looked.n_restored, looked.left)


def test_what_a_person_touched_is_left_and_named(store: Ledger, store_folder: Path) -> None:
    run = released(store, store_folder, "first", 1, 2, 3)
    desk = open_desk(store_folder)
    desk.decide([Opinion(queue="abuse", account_id=1, disposition=Disposition.CLEARED, by="ann")])
    desk.claim("abuse", by="ann", for_=timedelta(hours=1), only=[2])
    done = undone(store, run)
    assert done.n_withdrawn == 1
    assert done.left == tuple(
        LeftFlag(queue="abuse", account_id=account_id, state=state) for account_id, state in [(1, "cleared"), (2, "claimed")]
    )
    assert shown(store_folder) == {2: run.run_id}, "a flag that somebody is at stays before them"


def test_a_second_undo_changes_nothing_and_says_what_the_first_did(store: Ledger, store_folder: Path) -> None:
    run = released(store, store_folder, "first", 1, 2)
    released(store, store_folder, "later", 2)
    first = undone(store, run)
    trail = execute(store_folder, "SELECT number, digest FROM audit ORDER BY number").all()
    assert store.undo(run.run_id, by="bob@host", why="again") == first
    assert execute(store_folder, "SELECT number, digest FROM audit ORDER BY number").all() == trail


def test_a_later_run_may_flag_such_an_account_again_also_for_the_same_as_of(store: Ledger, store_folder: Path) -> None:
    run = released(store, store_folder, "first", 1, 2)
    assert remembered(store, store_folder) == {1, 2}
    undone(store, run)
    assert remembered(store, store_folder) == set()
    later = released(store, store_folder, "later", 1)
    assert shown(store_folder) == {1: later.run_id}


def test_the_flag_that_gave_way_stands_again_and_so_on_down_the_line(store: Ledger, store_folder: Path) -> None:
    runs = [released(store, store_folder, name, 7) for name in ("first", "second", "third")]
    for number, run in enumerate(runs):
        assert shown(store_folder) == {7: run.run_id}
        assert undone(store, run).n_restored == (number < 2)
    assert shown(store_folder) == {}


def test_an_undone_run_is_no_heir(store: Ledger, store_folder: Path) -> None:
    first, second, third = (released(store, store_folder, name, 7) for name in ("first", "second", "third"))
    undone(store, second)
    assert undone(store, first).n_restored == 1
    assert shown(store_folder) == {7: third.run_id}


def test_flags_of_a_run_that_stopped_inside_its_release_come_back_for_when_it_is_resumed(
    store: Ledger, store_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped, _ = store.open(make_plan(store_folder, name="stopped"), owner="me")
    both = [make_flag(account_id, run_id=stopped.run_id) for account_id in (1, 2)]

    def breaking() -> Any:
        yield from both
        raise Cut

    monkeypatch.setattr(flags, "ROWS_A_TRANSACTION", 2)
    with pytest.raises(Cut):
        store.release(stopped, breaking())
    store.close(stopped, "interrupted")
    over = released(store, store_folder, "over", 1)
    undone(store, over)
    assert shown(store_folder) == {}
    resumed, _ = store.open(make_plan(store_folder, name="stopped"), owner="me")
    store.release(resumed, iter(both))
    assert shown(store_folder) == {1: stopped.run_id, 2: stopped.run_id}


def test_cut_anywhere_an_undo_shows_none_of_the_flags_and_goes_on_to_the_same_end(
    open_again: OpenStore, store_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(undo, "ACCOUNTS_A_TRANSACTION", 2)
    store = open_again()
    for cut_after in range(1, 6):  # begin, two transactions of accounts, one that finds nothing more, the end
        base = 100 * cut_after
        run = released(store, store_folder, f"cut-{cut_after}", *range(base, base + 4))
        heir = released(store, store_folder, f"heir-{cut_after}", base, base + 3)
        before = {account: by for account, by in shown(store_folder).items() if by not in {run.run_id, heir.run_id}}
        calls: list[int] = []

        def cutting(*arguments: Any, calls: list[int] = calls, after: int = cut_after, **named: Any) -> Any:
            if len(calls) == after:
                raise Cut
            calls.append(1)
            return transact(*arguments, **named)

        with monkeypatch.context() as patched:
            patched.setattr(undo, "transact", cutting)
            try:
                undone(store, run)
            except Cut:
                assert store.reader().run(run.run_id).undone_at is None
        seen = {account: by for account, by in shown(store_folder).items() if account not in before}
        assert seen.items() <= {base: heir.run_id, base + 3: heir.run_id}.items(), "what is withdrawn is gone at once"
        assert not remembered(store, store_folder) & {base + 1, base + 2}
        done = open_again().undo(run.run_id, by="bob@host", why="the rest")
        assert (done.n_withdrawn, done.n_restored, done.by) == (4, 2, "ann@host")
        assert shown(store_folder) == before | {base: heir.run_id, base + 3: heir.run_id}


def test_a_run_that_released_nothing_is_refused(store: Ledger, store_folder: Path) -> None:
    run, _ = store.open(make_plan(store_folder), owner="me")
    with pytest.raises(Refused, match="nothing_to_undo"):
        store.reader().undo(run.run_id)
    with pytest.raises(Refused, match="nothing_to_undo"):
        undone(store, run)
    with pytest.raises(Refused, match="run_unknown"):
        store.undo("r-12345678-9", by="me", why="")


def test_the_trail_is_a_chain_that_names_each_account_by_a_keyed_digest_and_never_itself(
    open_again: OpenStore, store_folder: Path
) -> None:
    store = open_again("string")
    run = released(store, store_folder, "first", "canary-account", "other")
    heir = released(store, store_folder, "later", "other")
    undone(store, run)
    entries, head = list(store.reader().audit()), store.reader().audit_head()
    digest = BEGINNING
    for entry, held in entries:
        digest = entry.chained(digest)
        assert digest == held
    assert head == (len(entries), digest)
    key = audit_key(store_folder)
    assert [(entry.act, entry.run_id, entry.account, entry.detail) for entry, _ in entries] == [
        ("released", run.run_id, "", "2 flags, 0 overtaken (0 evidence, 0 kept)"),
        ("released", heir.run_id, "", "0 flags, 1 overtaken (0 evidence, 0 kept)"),
        ("undo begun", run.run_id, "", "wrong threshold"),
        ("withdrawn", run.run_id, account_digest(key, "canary-account"), ""),
        ("withdrawn", run.run_id, account_digest(key, "other"), ""),
        ("restored", run.run_id, account_digest(key, "other"), f"the flag of {heir.run_id}"),
        ("undone", run.run_id, "", "2 withdrawn, 1 restored, 0 evidence turned"),
    ]
    rows = execute(store_folder, "SELECT * FROM audit").all()
    assert "canary" not in str(rows)
    assert key.hex() not in str(rows)


def test_a_trail_without_its_head_is_not_written_to(store: Ledger, store_folder: Path) -> None:
    run = released(store, store_folder, "first", 1)
    with dba_engine(store_folder).begin() as connection:
        connection.execute(audit_head.delete())
    with pytest.raises(Exception, match="audit_head"):
        undone(store, run)
    assert shown(store_folder) == {1: run.run_id}


@pytest.mark.parametrize("held", [None, "", "cafe"])
def test_a_lost_key_of_the_trail_is_not_replaced_in_silence(store: Ledger, store_folder: Path, held: str | None) -> None:
    run, other = released(store, store_folder, "first", 1), store.open(make_plan(store_folder, name="other"), owner="me")[0]
    key = store_folder / KEY
    kept = key.read_text()
    key.unlink() if held is None else key.write_text(held)
    with pytest.raises(Refused, match="audit_key_lost"):
        undone(store, run)
    with pytest.raises(Refused, match="audit_key_lost"):
        store.release(other, iter([make_flag(2, run_id=other.run_id)]))
    assert shown(store_folder) == {1: run.run_id}, "nothing is taken back, and nothing released"
    key.write_text(kept)
    store.release(other, iter([make_flag(2, run_id=other.run_id)]))
    assert undone(store, run).n_withdrawn == 1


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    releases=st.lists(st.sets(st.integers(0, 6), max_size=6), min_size=1, max_size=5),
    order=st.lists(st.integers(0, 4), max_size=5, unique=True),
)
def test_after_any_undos_the_queue_is_as_if_those_runs_had_never_been(
    tmp_path_factory: pytest.TempPathFactory, releases: list[set[int]], order: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("store")
    store = open_store(folder, "integer")
    runs = [released(store, folder, f"run-{number}", *sorted(ids)) for number, ids in enumerate(releases)]
    for number in order:
        if number < len(runs):
            undone(store, runs[number])
    expected: dict[int | str, str] = {}
    for number, ids in enumerate(releases):
        for account_id in ids if number not in order else ():
            expected.setdefault(account_id, runs[number].run_id)
    assert shown(folder) == expected
