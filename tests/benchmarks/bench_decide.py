"""Benchmark of deciding: a whole run over 10M accounts, its decide and release against its scoring, and what its driver held."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.benchmarks import wide
from tests.benchmarks.figure import Figure

N_ACCOUNTS = 10_000_000
N_FILES = 80
MOST_BYTES = 1 << 30
MOST_SHARE = 0.15


def write_accounts(data: Path) -> Path:
    """The accounts of `wide`, with a country and a network each; kept when they are there already."""
    out = data / f"accounts-grouped-{N_ACCOUNTS}"
    if not (out / "_done").exists():
        out.mkdir(parents=True, exist_ok=True)
        each = N_ACCOUNTS // N_FILES
        for number in range(N_FILES):
            features, _ = wide.block(number, each)
            ids = np.arange(number * each, (number + 1) * each, dtype=np.int64)
            groups = {"country": (ids % 50).astype(np.int32), "network": (ids * 7_919 % 200_003).astype(np.int32)}
            columns = {name: features[:, place] for place, name in enumerate(wide.NAMES)}
            pq.write_table(pa.table({"account_id": ids, **groups, **columns}), out / f"part-{number:04d}.parquet")
        (out / "_done").touch()
    return out


def decide_and_release(data: Path) -> Iterator[Figure]:
    """10M scores, tiers, campaigns, a sample, a reserve: decide and release over scoring, and the driver's peak."""
    accounts, model = write_accounts(data), wide.write_model(data, n_trees=100)
    command = [sys.executable, "-m", "tests.benchmarks.one_decision", str(data), str(accounts), str(model)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    yield Figure(
        name="decide and release over scoring",
        ratio=(told["decide"] + told["release"]) / told["score"],
        floor=MOST_SHARE,
        higher_is_better=False,
        detail=f"{told['n_scores']:,} scores: decide {told['decide']:.1f} s, release of {told['n_flags']:,} flags "
        f"{told['release']:.1f} s, score {told['score']:.1f} s (beside them: reasons {told['reasons']:.1f} s, on workers)",
    )
    yield Figure(
        name="decide peak of the driver over 1 GiB",
        ratio=told["peak_bytes"] / MOST_BYTES,
        floor=1.0,
        higher_is_better=False,
        detail=f"{told['peak_bytes'] / 2**20:,.0f} MiB in the whole run; {told['before_bytes'] / 2**20:,.0f} MiB before decide",
    )
