"""Benchmark of deciding: a whole run over 10M accounts, its decide and release against its scoring, and what its driver held."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
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
STANDING = ((18_000, 2_000), (180_000, 20_000))  # flags that stand, and that were decided: of a year or so, and ten times that


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
    """10M scores, tiers, campaigns, a sample, a reserve: decide and release over scoring, and the driver's peak.

    Then again by a run of another name, over the same scores, while flags stand and others were decided: few, and many.
    """
    accounts, model = write_accounts(data), wide.write_model(data, n_trees=100)
    with tempfile.TemporaryDirectory(dir=data) as store:
        world = [str(data), str(accounts), str(model), store]
        first = _told_by("one_decision", *world)
        yield from _figures("decide and release", first, first["score"])
        for n_open, n_decided in STANDING:
            with tempfile.TemporaryDirectory(dir=data) as copy:
                shutil.copytree(store, copy, copy_function=_linked, dirs_exist_ok=True)
                world[-1] = copy
                _told_by("standing_flags", *world, str(n_open), str(n_decided))
                again = _told_by("one_decision", *world, "again")
            yield from _figures(f"decide with {n_open + n_decided:,} standing flags", again, first["score"])


def _linked(source: str, to: str) -> None:
    """The files of a store never change; its database does."""
    if Path(source).name.startswith("batchscore.db"):
        shutil.copyfile(source, to)
    else:
        os.link(source, to)


def _told_by(module: str, *given: str) -> dict[str, float]:
    """What a module says of itself, as JSON in its last line, in a process of its own."""
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", *given]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    told: dict[str, float] = json.loads(said[-1]) if said else {}
    return told


def _figures(name: str, told: dict[str, float], score_s: float) -> Iterator[Figure]:
    yield Figure(
        name=f"{name} over scoring",
        ratio=(told["decide"] + told["release"]) / score_s,
        floor=MOST_SHARE,
        higher_is_better=False,
        detail=f"{told['n_scores']:,} scores: decide {told['decide']:.2f} s, release of {told['n_flags']:,} flags and "
        f"{told['n_evidence']:,} pieces of evidence {told['release']:.2f} s, score {score_s:.1f} s "
        f"(beside them: reasons {told['reasons']:.1f} s, on workers)",
    )
    yield Figure(
        name=f"{name} peak of the driver over 1 GiB",
        ratio=told["peak_bytes"] / MOST_BYTES,
        floor=1.0,
        higher_is_better=False,
        detail=f"{told['peak_bytes'] / 2**20:,.0f} MiB in the whole run; {told['before_bytes'] / 2**20:,.0f} MiB before decide",
    )
