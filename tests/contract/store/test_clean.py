"""clean deletes what no run refers to and is old enough, and nothing else."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

from batchscore.files import write_named_by_digest
from batchscore.plan import DECISIONS, FEATURE_SETS, INDEXES, KeyRange, Partition, Reconsider, Reference, Score, Stage
from batchscore.store import Ledger, open_cleaner
from tests.contract.store.conftest import AS_OF, make_partitions, make_plan, make_receipt


def test_only_unreferenced_files_beyond_the_grace_are_deleted(store: Ledger, store_folder: Path) -> None:
    run, _ = store.open(make_plan(store_folder), owner="me")
    (partition,) = make_partitions(1)
    store.lay_out(run, Stage.ROLLUP, [partition])
    store.commit(run, [make_receipt(partition, folder=store_folder)])
    kept = store_folder / partition.address / "a.parquet"
    lost, young, foreign = kept.with_name("lost.parquet"), kept.with_name("young.parquet"), store_folder / "notes.txt"
    for path in (lost, young, foreign):
        path.touch()
    for path in (kept, lost, foreign):
        os.utime(path, (time.time() - 7_200,) * 2)
    cleaner = open_cleaner(store_folder)
    assert cleaner.clean(grace=timedelta(hours=1), apply=False) == (lost,)
    assert lost.exists()
    assert cleaner.clean(grace=timedelta(hours=1), apply=True) == (lost,)
    assert sorted(path.name for path in kept.parent.iterdir()) == ["a.parquet", "young.parquet"]
    assert foreign.exists()


def test_an_index_stays_while_work_of_a_run_refers_to_it_or_a_layout_just_took_it_up(store: Ledger, store_folder: Path) -> None:
    folder = store_folder / INDEXES

    def index(held: bytes) -> Reference:
        return write_named_by_digest(held, folder, "parquet")

    accounts, mails, taken_up, old = map(index, (b"accounts", b"mails", b"taken up", b"old"))
    growing = folder / ".growing.tmp"
    growing.touch()
    for path in folder.iterdir():
        os.utime(path, (time.time() - 7_200,) * 2)
    elsewhere = Reference(path="x", sha256="0" * 64)
    score = Score(
        feature_set=elsewhere, bundle=elsewhere, snapshots=accounts, rollups={"mails": mails}, keys=KeyRange(), as_ofs=(AS_OF,)
    )
    run, _ = store.open(make_plan(store_folder), owner="me")
    store.lay_out(run, Stage.SCORE, [Partition.of(score, number=0, n_rows=10, reads={"a": 1})])
    store.close(run, "finished")
    assert index(b"taken up") == taken_up
    lost = {growing, Path(old.path)}
    cleaner = open_cleaner(store_folder)
    assert set(cleaner.clean(grace=timedelta(hours=1), apply=False)) == lost
    assert set(cleaner.clean(grace=timedelta(hours=1), apply=True)) == lost
    assert {path.name for path in folder.iterdir()} == {Path(kept.path).name for kept in (accounts, mails, taken_up)}
    assert cleaner.clean(grace=timedelta(hours=1), apply=True) == ()


def test_what_a_driver_named_by_its_digest_stays_while_a_run_names_it(store: Ledger, store_folder: Path) -> None:
    decisions, feature_sets = store_folder / DECISIONS, store_folder / FEATURE_SETS
    plan = make_plan(store_folder)

    def written(held: bytes, folder: Path) -> Reference:
        return write_named_by_digest(held, folder, "parquet")

    read_by_run, of_nobody = (written(held, feature_sets) for held in (plan.feature_set.encode(), b"of a plan that was not run"))
    decided, remembered, looked_at = (written(held, decisions) for held in (b"decision", b"memory", b"to look closer at"))
    unrecorded, taken_up = (written(held, decisions) for held in (b"its driver died", b"decided once more"))
    for path in (*decisions.iterdir(), *feature_sets.iterdir()):
        os.utime(path, (time.time() - 7_200,) * 2)
    run, _ = store.open(plan, owner="me")
    cleaner = open_cleaner(store_folder)
    lost = {Path(one.path) for one in (of_nobody, unrecorded)}
    between = set(cleaner.clean(grace=timedelta(hours=1), apply=False))
    assert between == lost | {Path(one.path) for one in (decided, remembered, looked_at, taken_up)}, "only its plan names any yet"
    elsewhere = Reference(path="x", sha256="0" * 64)
    score = Score(feature_set=read_by_run, bundle=elsewhere, snapshots=elsewhere, rollups={}, keys=KeyRange(), as_ofs=(AS_OF,))
    closer = Partition.of(Reconsider(score=score, candidates=looked_at, names=()), number=0, n_rows=10, reads={"a": 1})
    store.lay_out(run, Stage.RECONSIDER, [closer])
    store.record_decision(run, decided, remembered)
    store.close(run, "failed", "later")
    assert written(b"decided once more", decisions) == taken_up
    assert set(cleaner.clean(grace=timedelta(hours=1), apply=True)) == lost
    kept = {Path(one.path) for one in (read_by_run, decided, remembered, looked_at, taken_up)}
    assert {*decisions.iterdir(), *feature_sets.iterdir()} == kept
