"""Benchmarks of reasons: contributions by the compiled explainer against XGBoost's ``pred_contribs``, one thread, bit for bit."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from batchscore.models.bundle import CheckedBundle, ReasonTemplate, read_checked
from batchscore.models.compiled_explainer import CompiledExplainer
from batchscore.models.contract import Frame, Matrix
from batchscore.models.pack import About, pack_bundle
from batchscore.models.xgboost_scorer import XGBoostScorer
from tests.benchmarks import wide
from tests.benchmarks.figure import Figure

N_FLAGS = 15_000  # of a large run
ROUNDS = 5


@dataclass(frozen=True, kw_only=True)
class Job:
    """A model to time on ``n`` rows. Only the first has a floor that this project promised."""

    n_trees: int
    depth: int
    n: int = 600
    floor: float = 1.0


JOBS = (
    Job(n_trees=100, depth=6, floor=5.0),
    Job(n_trees=100, depth=4, n=2_000),
    Job(n_trees=500, depth=6, n=150),
    Job(n_trees=100, depth=8, n=150),
)


def reasons(data: Path) -> Iterator[Figure]:
    """Seconds of ``pred_contribs`` over seconds of the compiled explainer and its samples; at last all from nothing."""
    for job in JOBS:
        checked = _bundle(data, job)
        reference = XGBoostScorer(checked)
        scorer = CompiledExplainer(reference, reference, checked.facts)
        scorer.certify()
        frame = _frame(job.n)
        assert scorer.contributions(frame).tobytes() == reference.contributions(frame).tobytes(), "a faster wrong answer is none"
        assert scorer.explained_by == "compiled"
        pairs = [(_seconds(scorer.contributions, frame), _seconds(reference.contributions, frame)) for _ in range(ROUNDS)]
        ours, theirs = (statistics.median(side) / job.n * 1e6 for side in zip(*pairs, strict=True))
        yield Figure(
            name=f"reasons {job.n_trees}x{job.depth}",
            ratio=statistics.median(theirs / ours for ours, theirs in pairs),
            floor=job.floor,
            higher_is_better=True,
            detail=f"{ours:,.1f} µs a row, pred_contribs {theirs:,.0f} µs; bits equal",
        )
    yield _from_the_beginning(data, JOBS[0])


def _from_the_beginning(data: Path, job: Job) -> Figure:
    """A fresh explainer on `N_FLAGS` rows: code, tables, certificate and samples are in it. XGBoost explains a tenth of them."""
    checked = _bundle(data, job)
    reference = XGBoostScorer(checked)
    frame, tenth = _frame(N_FLAGS), _frame(N_FLAGS // 10)
    pairs = []
    for _ in range(ROUNDS):
        fresh = CompiledExplainer(reference, reference, checked.facts)
        pairs.append((_seconds(fresh.contributions, frame), 10 * _seconds(reference.contributions, tenth)))
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    return Figure(
        name=f"reasons {job.n_trees}x{job.depth} from nothing",
        ratio=statistics.median(theirs / ours for ours, theirs in pairs),
        floor=5.0,
        higher_is_better=True,
        detail=f"{N_FLAGS:,} rows in {ours:.2f} s with tables and certificate, pred_contribs {theirs:.2f} s",
    )


def _bundle(data: Path, job: Job) -> CheckedBundle:
    model = wide.write_model(data, n_trees=job.n_trees, depth=job.depth)
    golden, _ = wide.block(100, 64)
    with tempfile.TemporaryDirectory(dir=data) as folder:
        reference = pack_bundle(
            model,
            Path(folder) / "bundle",
            features=wide.NAMES,
            feature_set_digest="0" * 64,
            golden=pa.table({name: golden[:, place] for place, name in enumerate(wide.NAMES)}),
            about=About(name="reasons", reasons={name: ReasonTemplate(code=name, sentence="{value}") for name in wide.NAMES}),
        )
        return read_checked(reference)


def _frame(n: int) -> Frame:
    rows, _ = wide.block(7, n)
    return Frame(tuple(wide.NAMES), rows, np.zeros(n, np.bool_))


def _seconds(work: Callable[[Frame], Matrix], frame: Frame) -> float:
    start = time.perf_counter()
    work(frame)
    return time.perf_counter() - start
