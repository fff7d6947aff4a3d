"""clean deletes what no run refers to and is old enough, and nothing else."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

from batchscore.plan import Stage
from batchscore.store import Ledger, open_cleaner
from tests.contract.store.conftest import make_partitions, make_plan, make_receipt


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
