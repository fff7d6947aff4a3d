"""clean deletes what no run refers to and is old enough, and nothing else."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

from batchscore.files import write_named_by_digest
from batchscore.plan import INDEXES, KeyRange, Partition, Reference, Score, Stage
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
