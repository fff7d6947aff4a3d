"""Benchmarks of bundles: what damaged ones do to workers, and what it costs that a child loads each model first."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from batchscore.models.bundle import read_checked, read_manifest
from batchscore.models.golden import read_golden
from batchscore.models.probe import require_survivor
from tests.benchmarks import wide
from tests.benchmarks.figure import Figure
from tests.integration.models.corrupted import SILENT, WORKER_DIED, Repair, outcomes

N_CORRUPTED = 1_000
MAX_PROBE_S = 1.0


def corrupted(data: Path) -> Iterator[Figure]:
    """Damaged bundles that kill a worker or score other bits without a word, of 1,000 whose digests were repaired.

    With ``all`` that the manifest says of the model repaired, it is another model, honestly packed but for its golden rows:
    those find what they reach, and only deaths are counted.
    """
    bundle = _bundle(data, n_trees=100, depth=6)
    repairs: tuple[Repair, ...] = ("file", "all")
    for repair in repairs:
        with tempfile.TemporaryDirectory() as scratch:
            found = outcomes(bundle, Path(scratch), N_CORRUPTED, repair, first_seed=1_000)
        yield Figure(
            name=f"bundle corrupted, {repair} repaired",
            ratio=found[WORKER_DIED] + (found[SILENT] if repair == "file" else 0),
            floor=1,
            higher_is_better=False,
            detail=f"a count, of {N_CORRUPTED}: " + ", ".join(f"{n} {what}" for what, n in found.most_common()),
        )


def first_load(data: Path) -> Iterator[Figure]:
    """Seconds that the child takes to load, score and explain 500 trees; beside it, an interpreter that imports XGBoost."""
    checked = read_checked(read_manifest(_bundle(data, n_trees=500, depth=6)).reference)
    manifest = checked.bundle.manifest
    rows = read_golden(checked.golden, manifest).frame.matrix
    probes, imports = [], []
    for _ in range(5):
        start = time.perf_counter()
        require_survivor(checked.model, rows, manifest.iteration_range[1], where="bench")
        between = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import xgboost"], check=True)
        probes.append(between - start)
        imports.append(time.perf_counter() - between)
    seconds = statistics.median(probes)
    yield Figure(
        name="bundle first load",
        ratio=seconds,
        floor=MAX_PROBE_S,
        higher_is_better=False,
        detail=f"seconds, once a worker and bundle; importing XGBoost alone {statistics.median(imports):.2f} s",
    )


def _bundle(data: Path, *, n_trees: int, depth: int) -> Path:
    """A packed bundle of the wide features."""
    model = wide.write_model(data, n_trees=n_trees, depth=depth)
    spec = wide.write_spec(data, data / "accounts", model, data / "store")
    return Path(spec.bundles[0].path)
