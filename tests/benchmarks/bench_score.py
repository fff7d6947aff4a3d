"""Benchmarks of scoring ready-made features: against bare pyarrow + ``inplace_predict``, and of memory as the input grows."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.models.contract import conform
from tests.benchmarks import wide
from tests.benchmarks.figure import Figure

ROUNDS = 3
N_ACCOUNTS = 2_000_000


def bare(accounts: Path, model: Path, out: Path) -> float:
    """Seconds of the least that can be done: read, ``inplace_predict`` on all cores, write every score."""
    import os

    import xgboost

    booster = xgboost.Booster(model_file=model)
    booster.set_param({"nthread": os.cpu_count()})
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    start = time.perf_counter()
    for file in sorted(accounts.glob("*.parquet")):
        table = pq.read_table(file)
        matrix = np.column_stack([table[name].to_numpy() for name in wide.NAMES])
        scores = booster.inplace_predict(matrix, validate_features=False)
        pq.write_table(pa.table({"account_id": table["account_id"], "score": scores}), out / file.name)
    return time.perf_counter() - start


def batchscore_run(folder: Path, accounts: Path, model: Path, *, partition_rows: int = 50_000) -> float:
    """Seconds of a whole run (freeze to proof, scores durably written), from the cluster being up; the store is new."""
    from batchscore.attempt import attempt
    from batchscore.executors.connect import local_cluster
    from batchscore.pipeline import run
    from batchscore.planner import make_plan
    from batchscore.readiness import get_ready
    from batchscore.store import open_store

    with tempfile.TemporaryDirectory(dir=folder) as store, local_cluster(attempt, prepare=get_ready) as executor:
        spec = wide.write_spec(folder, accounts, model, Path(store), partition_rows=partition_rows)
        start = time.perf_counter()
        row = run(make_plan(spec), executor=executor, store=open_store(Path(store), "integer"), observer=lambda _event: None)
        assert row.state == "finished"
        return time.perf_counter() - start


def score_parquet(data: Path) -> Iterator[Figure]:
    """2M accounts × 40 features, 500 trees of depth 6, all scores written: rows/s of batchscore over rows/s of bare."""
    accounts, model = wide.write_accounts(data, N_ACCOUNTS), wide.write_model(data)
    pairs = [(batchscore_run(data, accounts, model), bare(accounts, model, data / "bare")) for _ in range(ROUNDS)]
    ratio = statistics.median(theirs / ours for ours, theirs in pairs)
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    yield Figure(
        name="score parquet",
        ratio=ratio,
        floor=0.8,
        higher_is_better=True,
        detail=f"batchscore {N_ACCOUNTS / ours:,.0f} rows/s, bare {N_ACCOUNTS / theirs:,.0f} rows/s, {ROUNDS} interleaved rounds",
    )


def frame(_data: Path) -> Iterator[Figure]:
    """A partition's features, 50,000 rows × 40, brought to the matrix that a model scores: ``np.column_stack`` over `conform`."""
    columns, _ = wide.block(7, 50_000)
    table = pa.table({name: np.ascontiguousarray(columns[:, place]) for place, name in enumerate(wide.NAMES)})
    seconds: list[tuple[float, float]] = []
    for _ in range(31):
        begun = time.perf_counter()
        stacked = np.column_stack([table[name].to_numpy() for name in wide.NAMES])
        between = time.perf_counter()
        conformed = conform(table, wide.NAMES)
        seconds.append((between - begun, time.perf_counter() - between))
        assert conformed.matrix.tobytes() == stacked.tobytes()
    plain, ours = (statistics.median(side) for side in zip(*seconds, strict=True))
    yield Figure(
        name="frame",
        ratio=plain / ours,
        floor=1.0,
        higher_is_better=True,
        detail=f"column_stack {plain * 1e3:.1f} ms; conform {ours * 1e3:.1f} ms, which also checks names, types and every value",
    )


def memory(data: Path) -> Iterator[Figure]:
    """Peak memory of driver and workers together at 8M rows over 2M rows, a 100-tree model so that it ends today."""
    model = wide.write_model(data, n_trees=100)
    peaks = [_peak_bytes(data, wide.write_accounts(data, n, n_files=n // 125_000), model) for n in (N_ACCOUNTS, 4 * N_ACCOUNTS)]
    yield Figure(
        name="memory 8M rows over 2M rows",
        ratio=peaks[1] / peaks[0],
        floor=1.1,
        higher_is_better=False,
        detail=f"peak {peaks[0] / 2**20:,.0f} MiB at 2M, {peaks[1] / 2**20:,.0f} MiB at 8M (sum of driver and workers)",
    )


def _peak_bytes(data: Path, accounts: Path, model: Path) -> int:
    """Largest sum of resident memory of a run's process family, sampled every 50 ms."""
    import psutil

    child = subprocess.Popen([sys.executable, "-m", "tests.benchmarks.one_run", str(data), str(accounts), str(model)])
    family, peak = psutil.Process(child.pid), 0
    while child.poll() is None:
        total = 0
        for process in [family, *family.children(recursive=True)]:
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        peak = max(peak, total)
        time.sleep(0.05)
    assert child.returncode == 0
    return peak
