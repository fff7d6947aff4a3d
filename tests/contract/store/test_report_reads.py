"""What a report reads of a run: where it ran, what failed, what was reused, the run before it, the state of its flags."""

from __future__ import annotations

from pathlib import Path

from batchscore.plan import Stage
from batchscore.store import Ledger
from tests.contract.store.conftest import make_flag, make_partitions, make_plan, make_receipt, make_task


def test_a_run_says_where_its_newest_driver_ran_it(store: Ledger, store_folder: Path) -> None:
    run, row = store.open(make_plan(store_folder), owner="me")
    assert row.executor == ""
    store.note_executor(run, "inline, in this process")
    store.note_executor(run, "dask tcp://127.0.0.1:8786, 2 workers" + "x" * 500)
    found = store.reader().run(run.run_id).executor
    assert found.startswith("dask tcp://127.0.0.1:8786, 2 workers")
    assert len(found) <= 255


def test_partitions_at_which_something_went_wrong_are_told_with_the_last_reason(store: Ledger, store_folder: Path) -> None:
    run, _ = store.open(make_plan(store_folder), owner="me")
    fine, failing, mended = make_partitions(3)
    store.lay_out(run, Stage.ROLLUP, [fine, failing, mended])
    store.count_failure(run, make_task(run.run_id, failing), "attempt_failed", "first", quarantine_at=2)
    store.count_failure(run, make_task(run.run_id, failing), "input_corrupt", "second", quarantine_at=2)
    store.count_suspicion(run, make_task(run.run_id, mended))
    store.commit(run, [make_receipt(fine), make_receipt(mended)])
    rows = store.reader().failures(run.run_id)
    assert [(row.number, row.state, row.n_failures, row.n_suspicions, row.reason, row.message) for row in rows] == [
        (failing.number, "quarantined", 2, 0, "input_corrupt", "second"),
        (mended.number, "committed", 0, 1, "worker_lost", ""),
    ]
    other, _ = store.open(make_plan(store_folder, name="other"), owner="me")
    assert store.reader().failures(other.run_id) == ()


def test_a_partition_is_reused_when_an_earlier_run_had_its_receipt(store: Ledger, store_folder: Path) -> None:
    first, _ = store.open(make_plan(store_folder, name="first"), owner="me")
    before, after = make_partitions(2)
    store.lay_out(first, Stage.ROLLUP, [before])
    store.commit(first, [make_receipt(before, folder=store_folder)])
    second, _ = store.open(make_plan(store_folder, name="second"), owner="me")
    store.lay_out(second, Stage.ROLLUP, [before, after])
    assert store.reader().reused(second.run_id) == {(Stage.ROLLUP, before.number)}
    assert store.reader().reused(first.run_id) == frozenset()


def test_the_run_before_is_the_newest_finished_one_of_the_same_name(store: Ledger, store_folder: Path) -> None:
    rows = []
    for name, pinned, state in (
        ("weekly", "1", "finished"),
        ("weekly", "2", "finished"),
        ("weekly", "3", "failed"),
        ("daily", "4", "finished"),
        ("weekly", "5", "finished"),
    ):
        run, _ = store.open(make_plan(store_folder, name=name, input=pinned), owner="me")
        rows.append(store.close(run, state))
    reader = store.reader()
    assert reader.run_before(rows[0]) is None
    for at, expected in ((1, rows[0]), (2, rows[1]), (4, rows[1])):
        found = reader.run_before(rows[at])
        assert found is not None
        assert found.run_id == expected.run_id
    assert reader.run_before(rows[3]) is None


def test_flags_of_a_run_are_counted_by_state(store: Ledger, store_folder: Path) -> None:
    first, _ = store.open(make_plan(store_folder, name="first"), owner="me")
    second, _ = store.open(make_plan(store_folder, name="second"), owner="me")
    assert store.reader().flag_states(first.run_id) == {}
    store.release(first, iter([make_flag(account, run_id=first.run_id) for account in (1, 2)]))
    store.release(second, iter([make_flag(account, run_id=second.run_id) for account in (2, 3)]))
    assert store.reader().flag_states(first.run_id) == {"open": 2}
    assert store.reader().flag_states(second.run_id) == {"open": 1, "overtaken": 1}
