"""The ledger's rules: who may write, what is accepted, what is counted."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from batchscore.errors import CommitConflict, Fenced, Refused, RunFailed
from batchscore.plan import Partition, Plan, Reference, Stage
from batchscore.ports import RunHandle, RunRow
from batchscore.store import Ledger, committing, open_reader
from tests.contract.store.conftest import OpenStore, make_partitions, make_plan, make_receipt, make_task
from tests.dba import dba_engine

SHORT_S = 0.2


def wait_for_lease(store: Ledger, plan: Plan) -> tuple[RunHandle, RunRow]:
    """Take the run over as soon as its lease has run out."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            return store.open(plan, owner="second")
        except Refused:
            time.sleep(0.02)
    raise AssertionError("the lease never ran out")


def test_a_run_is_named_by_its_plan_and_generation(store: Ledger, store_folder: Path) -> None:
    plan = make_plan(store_folder)
    _, row = store.open(plan, owner="me")
    assert row.run_id == f"r-{plan.digest[:8]}-1"
    assert (row.state, row.epoch, row.plan) == ("running", 1, plan)


def test_a_second_driver_is_told_who_has_the_run(store: Ledger, open_again: OpenStore, store_folder: Path) -> None:
    store.open(make_plan(store_folder), owner="host-a:1")
    with pytest.raises(Refused, match=r"run_taken.*host-a:1"):
        open_again().open(make_plan(store_folder), owner="host-b:2")


def test_an_expired_lease_is_taken_over_and_the_old_driver_is_fenced(open_again: OpenStore, store_folder: Path) -> None:
    plan, old_store, new_store = make_plan(store_folder), open_again(lease_s=SHORT_S), open_again()
    old, _ = old_store.open(plan, owner="first")
    old_store.lay_out(old, Stage.ROLLUP, make_partitions(2))
    new, row = wait_for_lease(new_store, plan)
    assert row.epoch == old.epoch + 1
    receipt = make_receipt(make_partitions(2)[0])
    for write in (
        lambda: old_store.renew(old),
        lambda: old_store.commit(old, [receipt]),
        lambda: old_store.lay_out(old, Stage.SCORE, []),
        lambda: old_store.count_failure(old, make_task(old.run_id, make_partitions(1)[0]), "x", "", quarantine_at=1),
        lambda: old_store.count_suspicion(old, make_task(old.run_id, make_partitions(1)[0])),
        lambda: old_store.record_decision(old, Reference(path="d", sha256="0"), Reference(path="m", sha256="0")),
        lambda: old_store.note_executor(old, "inline"),
        lambda: old_store.release(old, iter(())),
        lambda: old_store.close(old, "finished"),
    ):
        with pytest.raises(Fenced):
            write()
    assert new_store.commit(new, [receipt]) == (0,)


def test_renewing_keeps_a_lease_alive(open_again: OpenStore, store_folder: Path) -> None:
    store, rival = open_again(lease_s=0.6), open_again()
    run, _ = store.open(make_plan(store_folder), owner="first")
    until = time.monotonic() + 1.2
    while time.monotonic() < until:
        store.renew(run)
        with pytest.raises(Refused, match="run_taken"):
            rival.open(make_plan(store_folder), owner="second")
        time.sleep(0.05)


def test_a_finished_run_is_returned_and_cannot_be_written(store: Ledger, store_folder: Path) -> None:
    run, _ = store.open(make_plan(store_folder), owner="me")
    store.close(run, "finished")
    again, row = store.open(make_plan(store_folder), owner="me")
    assert row.state == "finished"
    with pytest.raises(Fenced):
        store.lay_out(again, Stage.ROLLUP, make_partitions(1))


def test_again_opens_the_next_generation_of_a_finished_run(store: Ledger, store_folder: Path) -> None:
    run, _ = store.open(make_plan(store_folder), owner="me")
    store.close(run, "finished")
    _, row = store.open(make_plan(store_folder), owner="me", again=True)
    assert (row.generation, row.run_id[-2:], row.state) == (2, "-2", "running")
    assert [found.generation for found in store.reader().runs_of_plan(row.plan_digest)] == [2, 1]


@pytest.mark.parametrize("state", ["interrupted", "held", "failed"])
def test_an_unfinished_run_is_taken_up_again_at_once(store: Ledger, store_folder: Path, state: str) -> None:
    run, _ = store.open(make_plan(store_folder), owner="first")
    store.close(run, state, "because")
    assert store.reader().run(run.run_id).why == "because"
    taken, row = store.open(make_plan(store_folder), owner="second")
    assert (taken.run_id, taken.epoch, row.state, row.why) == (run.run_id, 2, "running", "")


def test_a_stage_is_laid_out_once(store: Ledger, store_folder: Path) -> None:
    run, _ = store.open(make_plan(store_folder), owner="me")
    store.lay_out(run, Stage.ROLLUP, make_partitions(3))
    store.lay_out(run, Stage.ROLLUP, make_partitions(3))
    assert store.reader().partitions(run.run_id, Stage.ROLLUP) == tuple(make_partitions(3))
    with pytest.raises(CommitConflict):
        store.lay_out(run, Stage.ROLLUP, make_partitions(4))


def test_the_first_receipt_wins_and_an_equal_second_is_success(store: Ledger, store_folder: Path) -> None:
    run, _ = store.open(make_plan(store_folder), owner="me")
    partitions = make_partitions(3)
    store.lay_out(run, Stage.ROLLUP, partitions)
    assert store.commit(run, [make_receipt(partitions[0], attempt="a"), make_receipt(partitions[1], attempt="b")]) == (0, 1)
    assert store.commit(run, [make_receipt(partitions[0], attempt="late")]) == ()
    (first, _second) = store.reader().receipts(run.run_id, Stage.ROLLUP)
    assert first.attempt == "a"
    assert [partition.number for partition in store.unfinished(run, Stage.ROLLUP)] == [2]


def test_two_receipts_of_one_partition_in_one_batch_have_one_winner(store: Ledger, store_folder: Path) -> None:
    run, _ = store.open(make_plan(store_folder), owner="me")
    (partition,) = make_partitions(1)
    store.lay_out(run, Stage.ROLLUP, [partition])
    assert store.commit(run, [make_receipt(partition, attempt="a"), make_receipt(partition, attempt="b")]) == (0,)


def test_attempts_that_differ_stop_the_run_and_nothing_of_the_batch_is_kept(store: Ledger, store_folder: Path) -> None:
    run, _ = store.open(make_plan(store_folder), owner="me")
    partitions = make_partitions(2)
    store.lay_out(run, Stage.ROLLUP, partitions)
    store.commit(run, [make_receipt(partitions[0])])
    with pytest.raises(RunFailed, match="nondeterministic"):
        store.commit(run, [make_receipt(partitions[1]), make_receipt(partitions[0], attempt="z", sha256="2" * 64)])
    assert [partition.number for partition in store.unfinished(run, Stage.ROLLUP)] == [1]


def test_of_two_attempts_at_a_live_table_the_first_counts(store: Ledger, store_folder: Path) -> None:
    run, _ = store.open(make_plan(store_folder), owner="me")
    (partition,) = make_partitions(1)
    store.lay_out(run, Stage.ROLLUP, [partition])
    first = make_receipt(partition).model_copy(update={"live": True})
    second = make_receipt(partition, attempt="z", sha256="2" * 64).model_copy(update={"live": True})
    assert store.commit(run, [first, second]) == (0,)
    assert store.commit(run, [second]) == ()
    assert [receipt.attempt for receipt in store.reader().receipts(run.run_id, Stage.ROLLUP)] == [first.attempt]


def test_a_receipt_for_another_address_is_a_conflict(store: Ledger, store_folder: Path) -> None:
    run, _ = store.open(make_plan(store_folder), owner="me")
    store.lay_out(run, Stage.ROLLUP, make_partitions(1))
    for stranger in (make_partitions(1, world="b")[0], make_partitions(2)[1]):
        with pytest.raises(CommitConflict):
            store.commit(run, [make_receipt(stranger)])


def test_work_that_an_earlier_run_did_is_not_done_again(store: Ledger, store_folder: Path) -> None:
    first, _ = store.open(make_plan(store_folder), owner="me")
    partitions = make_partitions(3)
    store.lay_out(first, Stage.ROLLUP, partitions)
    store.commit(first, [make_receipt(partition, folder=store_folder) for partition in partitions[:2]])
    second, _ = store.open(make_plan(store_folder, policy="other"), owner="me")
    renumbered = [partition.model_copy(update={"number": 2 - partition.number}) for partition in partitions]
    store.lay_out(second, Stage.ROLLUP, renumbered)
    assert [partition.number for partition in store.unfinished(second, Stage.ROLLUP)] == [0]
    assert [receipt.number for receipt in store.reader().receipts(second.run_id, Stage.ROLLUP)] == [1, 2]


def test_many_receipts_are_committed_and_reused_in_several_statements_as_in_one(
    store: Ledger, store_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committing, "PER_STATEMENT", 2)
    monkeypatch.setattr(committing, "_STATEMENT_CHARS", 900)  # which one receipt and a half have
    partitions = make_partitions(5)
    receipts = [make_receipt(partition, folder=store_folder, attempt=f"a{partition.number}") for partition in partitions]
    first, _ = store.open(make_plan(store_folder), owner="me")
    store.lay_out(first, Stage.ROLLUP, partitions)
    assert store.commit(first, receipts) == (0, 1, 2, 3, 4)
    assert store.commit(first, receipts) == ()
    second, _ = store.open(make_plan(store_folder, policy="other"), owner="me")
    store.lay_out(second, Stage.ROLLUP, partitions)
    for run in (first, second):
        assert list(store.reader().receipts(run.run_id, Stage.ROLLUP)) == receipts
        assert [output.path for output in store.reader().outputs(run.run_id)] == sorted(r.outputs[0].path for r in receipts)


def test_of_several_receipts_for_an_address_the_newest_is_taken_whose_files_are_whole(store: Ledger, store_folder: Path) -> None:
    (partition,) = make_partitions(1)
    older = _committed_with_file(store, store_folder, partition)
    whole = older.read_bytes()
    older.write_bytes(b"")
    newer = make_receipt(partition, folder=store_folder, attempt="b")
    second, _ = store.open(make_plan(store_folder, policy="second"), owner="me")
    store.lay_out(second, Stage.ROLLUP, [partition])
    store.commit(second, [newer])
    older.write_bytes(whole)
    for name, attempt in (("third", "b"), ("fourth", "a")):
        run, _ = store.open(make_plan(store_folder, policy=name), owner="me")
        store.lay_out(run, Stage.ROLLUP, [partition])
        assert [receipt.attempt for receipt in store.reader().receipts(run.run_id, Stage.ROLLUP)] == [attempt]
        (store_folder / newer.outputs[0].path).write_bytes(b"")


def test_work_whose_files_are_gone_is_done_again(store: Ledger, store_folder: Path) -> None:
    first, _ = store.open(make_plan(store_folder), owner="me")
    (partition,) = make_partitions(1)
    store.lay_out(first, Stage.ROLLUP, [partition])
    store.commit(first, [make_receipt(partition)])
    second, _ = store.open(make_plan(store_folder, policy="other"), owner="me")
    store.lay_out(second, Stage.ROLLUP, [partition])
    assert store.unfinished(second, Stage.ROLLUP) == (partition,)


def test_work_whose_file_was_cut_short_is_done_again(store: Ledger, store_folder: Path) -> None:
    (partition,) = make_partitions(1)
    _committed_with_file(store, store_folder, partition).write_bytes(b"")
    second, _ = store.open(make_plan(store_folder, policy="other"), owner="me")
    store.lay_out(second, Stage.ROLLUP, [partition])
    assert store.unfinished(second, Stage.ROLLUP) == (partition,)


def test_a_run_that_is_run_again_looks_at_every_byte_it_would_reuse(store: Ledger, store_folder: Path) -> None:
    whole, damaged = make_partitions(2)
    first, _ = store.open(make_plan(store_folder), owner="me")
    store.lay_out(first, Stage.ROLLUP, [whole, damaged])
    receipts = [make_receipt(partition, folder=store_folder) for partition in (whole, damaged)]
    store.commit(first, receipts)
    store.close(first, "finished")
    path = store_folder / receipts[1].outputs[0].path
    path.write_bytes(b"R" + path.read_bytes()[1:])
    second, _ = store.open(make_plan(store_folder), owner="me", again=True)
    store.lay_out(second, Stage.ROLLUP, [whole, damaged])
    assert store.unfinished(second, Stage.ROLLUP) == (damaged,)


def _committed_with_file(store: Ledger, store_folder: Path, partition: Partition) -> Path:
    first, _ = store.open(make_plan(store_folder), owner="me")
    store.lay_out(first, Stage.ROLLUP, [partition])
    receipt = make_receipt(partition, folder=store_folder)
    store.commit(first, [receipt])
    return store_folder / receipt.outputs[0].path


def test_the_third_failure_quarantines_and_a_zombies_receipt_is_passed_over(store: Ledger, store_folder: Path) -> None:
    run, _ = store.open(make_plan(store_folder), owner="me")
    (partition,) = make_partitions(1)
    store.lay_out(run, Stage.ROLLUP, [partition])
    task = make_task(run.run_id, partition)
    assert [store.count_failure(run, task, "attempt_failed", "at x", quarantine_at=3) for _ in range(3)] == [False, False, True]
    assert store.commit(run, [make_receipt(partition)]) == ()
    (aside,) = store.reader().quarantined(run.run_id)
    assert (aside.number, aside.reason, aside.message) == (0, "attempt_failed", "at x")
    assert store.unfinished(run, Stage.ROLLUP) == ()


def test_a_final_failure_quarantines_at_once_and_a_failure_after_success_changes_nothing(
    store: Ledger, store_folder: Path
) -> None:
    run, _ = store.open(make_plan(store_folder), owner="me")
    partitions = make_partitions(2)
    store.lay_out(run, Stage.ROLLUP, partitions)
    assert store.count_failure(run, make_task(run.run_id, partitions[0]), "input_corrupt", "", quarantine_at=1)
    store.commit(run, [make_receipt(partitions[1])])
    assert not store.count_failure(run, make_task(run.run_id, partitions[1]), "attempt_failed", "", quarantine_at=1)


def test_suspicions_are_counted_and_quarantine_nobody(store: Ledger, store_folder: Path) -> None:
    run, _ = store.open(make_plan(store_folder), owner="me")
    (partition,) = make_partitions(1)
    store.lay_out(run, Stage.ROLLUP, [partition])
    assert [store.count_suspicion(run, make_task(run.run_id, partition)) for _ in range(3)] == [1, 2, 3]
    assert store.reader().quarantined(run.run_id) == ()


def test_a_decision_is_recorded_once(store: Ledger, store_folder: Path) -> None:
    run, _ = store.open(make_plan(store_folder), owner="me")
    first, second = Reference(path="d1", sha256="1"), Reference(path="d2", sha256="2")
    assert store.record_decision(run, first, first).decision == first
    assert store.record_decision(run, second, second).decision == first


def test_progress_is_the_same_number_for_every_reader_and_never_goes_back(store: Ledger, store_folder: Path) -> None:
    run, _ = store.open(make_plan(store_folder), owner="me")
    partitions = make_partitions(4)
    store.lay_out(run, Stage.ROLLUP, partitions)
    seen = []
    for partition in partitions[:3]:
        store.commit(run, [make_receipt(partition)])
        (stage,) = open_reader(store_folder).stages(run.run_id)
        seen.append((stage.n_committed, stage.n_rows_committed))
    assert seen == [(1, 10), (2, 20), (3, 30)]
    store.count_failure(run, make_task(run.run_id, partitions[3]), "x", "", quarantine_at=1)
    (stage,) = store.reader().stages(run.run_id)
    assert (stage.n_partitions, stage.n_committed, stage.n_quarantined, stage.n_rows) == (4, 3, 1, 40)


def test_the_pace_of_a_stage_is_that_of_its_newest_driver_and_a_night_without_one_is_not_in_it(
    store: Ledger, store_folder: Path
) -> None:
    def pace(*minutes_of: float) -> tuple[float | None, float | None]:
        with dba_engine(store_folder).begin() as connection:
            for number, at in enumerate(minutes_of):
                query = "UPDATE partitions SET updated_at = (SELECT laid_out_at FROM stages) + :at WHERE number = :number"
                connection.execute(sa.text(query), {"at": 60 * at, "number": number})
        (stage,) = store.reader().stages(run.run_id)
        return stage.rows_per_s and round(60 * stage.rows_per_s, 3), stage.eta_s and round(stage.eta_s / 60, 3)

    run, _ = store.open(make_plan(store_folder), owner="first")
    partitions = make_partitions(6)
    store.lay_out(run, Stage.ROLLUP, partitions)
    assert pace() == (None, None)
    store.commit(run, [make_receipt(partition) for partition in partitions[:2]])
    assert pace(1, 2) == (10, 4)
    store.close(run, "interrupted", "")
    run, _ = store.open(make_plan(store_folder), owner="second")
    assert pace(1, 2) == (10, 4), "of the one before, as long as this one has done nothing"
    store.commit(run, [make_receipt(partitions[2])])
    assert pace(1, 2, 600) == (None, None), "nobody knows how long it took"
    store.commit(run, [make_receipt(partition) for partition in partitions[3:5]])
    assert pace(1, 2, 600, 602, 604) == (5, 2)


def test_why_a_run_waits_is_seen_by_every_reader_until_it_goes_on(store: Ledger, store_folder: Path) -> None:
    run, _ = store.open(make_plan(store_folder), owner="me")
    store.note_waiting(run, "the scheduler has no workers")
    assert open_reader(store_folder).run(run.run_id).why == "the scheduler has no workers"
    store.note_waiting(run, "")
    assert open_reader(store_folder).run(run.run_id).why == ""


def test_plans_whose_digests_begin_alike_get_ids_of_their_own(
    store: Ledger, store_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import batchscore.plan as module

    digests = {"a": "12345678" + "a" * 56, "b": "12345678" + "b" * 56}
    monkeypatch.setattr(module.Plan, "digest", property(lambda plan: digests[plan.pinned["spec"]]))
    ids = [store.open(make_plan(store_folder, name=name), owner="me")[1].run_id for name in ("a", "b")]
    assert ids == ["r-12345678-1", "r-12345678-2"]


@pytest.mark.parametrize("run_id", ["../../x", "r-1", "", "r-zzzzzzzz-1", "r-00000000-0", "r-00000000-1'; --", "r-00000000-1\n"])
def test_a_run_id_of_another_form_is_refused_unread(store: Ledger, run_id: str) -> None:
    with pytest.raises(Refused, match="run_id_invalid"):
        store.reader().run(run_id)


def test_a_reader_of_a_missing_store_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="store_missing"):
        open_reader(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


def test_a_store_keeps_its_kind_of_ids(store: Ledger, open_again: OpenStore) -> None:
    with pytest.raises(Refused, match="id_kind"):
        open_again("string")


def test_a_store_of_newer_code_is_refused(store: Ledger, open_again: OpenStore, store_folder: Path) -> None:
    with dba_engine(store_folder).begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    for opened in (open_again, lambda: open_reader(store_folder)):
        with pytest.raises(Refused, match="store_schema"):
            opened()


def test_one_as_of_of_a_spec_is_swept_by_one_plan_at_a_time(store: Ledger, store_folder: Path) -> None:
    first, other = make_plan(store_folder, world="a"), make_plan(store_folder, world="b")
    store.begin_sweep(first)
    run, _ = store.open(first, owner="host-a:1")
    store.begin_sweep(first)
    with pytest.raises(Refused, match="run_taken"):
        store.begin_sweep(other)
    store.close(run, "failed")
    store.begin_sweep(other)
    assert [(sweep.plan_digest, sweep.state) for sweep in store.reader().sweeps("weekly")] in (
        [(first.digest, "failed"), (other.digest, None)],
        [(other.digest, None), (first.digest, "failed")],
    )


def test_sweeps_are_told_by_spec_and_every_run_of_them_is_told(store: Ledger, store_folder: Path) -> None:
    plan = make_plan(store_folder)
    store.begin_sweep(plan)
    for _ in range(2):
        run, _ = store.open(plan, owner="me", again=True)
        store.close(run, "finished")
    assert [sweep.run_id for sweep in store.reader().sweeps("weekly")] == [f"r-{plan.digest[:8]}-{number}" for number in (1, 2)]
    assert store.reader().sweeps("monthly") == ()


def test_the_next_generation_of_a_failed_run_is_another_run(store: Ledger, store_folder: Path) -> None:
    plan = make_plan(store_folder)
    run, _ = store.open(plan, owner="me")
    store.close(run, "failed")
    assert store.open(plan, owner="me")[0].run_id == run.run_id
    store.close(store.open(plan, owner="me")[0], "failed")
    assert store.open(plan, owner="me", again=True)[0].run_id != run.run_id
