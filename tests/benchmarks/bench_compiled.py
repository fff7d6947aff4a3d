"""Benchmarks of the compiled scorer: its margins against ``inplace_predict``'s, on one core and on two, and bit for bit."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xgboost as xgb

from batchscore.models.contract import Matrix
from batchscore.models.forest import read_forest
from batchscore.models.kernel import score_margins
from batchscore.models.model_file import read_model_facts
from tests.benchmarks import wide
from tests.benchmarks.figure import Figure
from tests.integration.models.random_models import Shape, base_margin, random_model, rows_on_the_cuts

N_ROWS = 40_000
ROUNDS = 7
N_EQUAL = 10_000_000


@dataclass(frozen=True, kw_only=True)
class Job:
    """A model to time. Only the first has a floor that this project promised."""

    n_trees: int
    depth: int
    missing: float = 0.05
    n_threads: int = 1
    floor: float = 1.0

    @property
    def name(self) -> str:
        dense = {0.0: " dense", 0.3: " 30% missing"}.get(self.missing, "")
        return f"compiled scorer {self.n_trees}x{self.depth}{dense}" + (" 2 threads" if self.n_threads > 1 else "")


JOBS = (
    Job(n_trees=500, depth=6, floor=3.0),
    Job(n_trees=500, depth=6, n_threads=2, floor=3.0),
    Job(n_trees=500, depth=6, missing=0.0),
    Job(n_trees=500, depth=6, missing=0.3),
    Job(n_trees=200, depth=6),
    Job(n_trees=500, depth=8),
    Job(n_trees=1_000, depth=10),
    Job(n_trees=100, depth=4),
)


def compiled_scorer(data: Path) -> Iterator[Figure]:
    """Seconds of ``inplace_predict`` over seconds of the compiled scorer, the same 40,000 rows and threads, interleaved."""
    for job in JOBS:
        path = wide.write_model(data, n_trees=job.n_trees, depth=job.depth)
        booster = xgb.Booster({"nthread": job.n_threads}, model_file=path)
        facts = read_model_facts(path.read_bytes(), where=path.name)
        forest, base = read_forest(facts, job.n_trees), base_margin(bytes(booster.save_raw("json")))
        rows = _rows(job.missing)
        with ThreadPoolExecutor(job.n_threads) as pool:

            def ours(rows: Matrix = rows, n: int = job.n_threads, pool: ThreadPoolExecutor = pool) -> Matrix:
                return np.concatenate(list(pool.map(lambda part: score_margins(forest, part, base), np.array_split(rows, n))))  # noqa: B023 (called before the next turn)

            def theirs(rows: Matrix = rows, booster: xgb.Booster = booster) -> Matrix:
                found: Matrix = booster.inplace_predict(rows, predict_type="margin", missing=np.nan)
                return found

            assert ours().tobytes() == theirs().tobytes(), "a faster wrong answer is none"
            pairs = [(_seconds(ours), _seconds(theirs)) for _ in range(ROUNDS)]
        fast, slow = (statistics.median(side) / N_ROWS * 1e9 for side in zip(*pairs, strict=True))
        yield Figure(
            name=job.name,
            ratio=statistics.median(slow / fast for fast, slow in pairs),
            floor=job.floor,
            higher_is_better=True,
            detail=f"{fast:,.0f} ns a row, inplace_predict {slow:,.0f} ns; bits equal",
        )


def equal_bits(data: Path) -> Iterator[Figure]:
    """Rows of random hostile models whose margin differs from XGBoost's in a bit, of ten million that lie on the cuts."""
    del data
    chance = np.random.default_rng(20261125)
    n_rows = n_models = n_differ = 0
    while n_rows < N_EQUAL:
        shape = Shape(
            n_features=int(chance.integers(1, 24)),
            n_trees=int(chance.integers(1, 40)),
            depth=int(chance.integers(0, 12)),
            n_cuts=int(chance.choice([1, 5, 100, 250, 600, 3_000])),
            lopsided=bool(chance.integers(0, 2)),
            full=float(chance.uniform(0.3, 1)),
        )
        model, booster = random_model(shape, seed=n_models)
        rows = rows_on_the_cuts(model, 50_000, seed=n_models)
        found = score_margins(read_forest(read_model_facts(model, where="random"), shape.n_trees), rows, base_margin(model))
        expected = booster.inplace_predict(rows, predict_type="margin", missing=np.nan)
        n_differ += int((found.view(np.uint32) != expected.view(np.uint32)).sum())
        n_rows, n_models = n_rows + len(rows), n_models + 1
    yield Figure(
        name="compiled scorer rows that differ",
        ratio=n_differ,
        floor=1,
        higher_is_better=False,
        detail=f"of {n_rows:,} rows of {n_models} random models; a count, not a ratio",
    )


def _rows(missing: float) -> Matrix:
    rows, _ = wide.block(7, N_ROWS)
    chance = np.random.default_rng(8)
    if missing == 0:
        return np.nan_to_num(rows)
    rows[chance.random(rows.shape) < missing] = np.nan
    return rows


def _seconds(work: Callable[[], Matrix]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
