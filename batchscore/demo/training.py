"""Trains the demo's model on the past: a run's own sources, rollups and frame as of one date, labelled by the truth of then."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from batchscore.demo.truth import Truth
from batchscore.features.feature_set import read_feature_set
from batchscore.keys import ACCOUNT_ID
from batchscore.models.bundle import ReasonTemplate
from batchscore.models.contract import conform
from batchscore.models.pack import About, pack_bundle
from batchscore.models.training import train
from batchscore.planner.inputs import read_inputs
from batchscore.spec import RunSpec
from batchscore.training.frame import training_frames

N_TREES: Final = 120
DEPTH: Final = 4
N_GOLDEN: Final = 64
MAX_TRAINING_ROWS: Final = 200_000  # of a large world the first key ranges are enough


def train_bundle(spec: RunSpec, truth: Truth, as_of: datetime) -> None:
    """Train on the accounts that existed at ``as_of``, labelled by what they had shown by then, and pack the spec's bundle."""
    feature_set = read_feature_set(Path(spec.feature_set))
    inputs, _, _ = read_inputs(spec, feature_set)
    with tempfile.TemporaryDirectory() as scratch:
        frame = _first_rows(training_frames(spec, feature_set, inputs, as_of, Path(scratch)))
    labels = truth.is_abusive(frame[ACCOUNT_ID], as_of).to_numpy().astype(np.int32)
    matrix = conform(frame, feature_set.names).matrix
    booster = train(matrix, labels, feature_set.names, n_trees=N_TREES, depth=DEPTH)
    rows = frame.take(pa.array(np.linspace(0, len(frame) - 1, min(N_GOLDEN, len(frame))).astype(np.int64)))
    reasons = {name: ReasonTemplate(code=name, sentence=feature_set.describe(name)) for name in feature_set.names}
    about = About(
        name=feature_set.feature_set,
        reasons=reasons,
        trained_as_of=as_of,
        notes={"base rate": f"{labels.mean():.3f}", "accounts": str(len(labels))},
    )
    pack_bundle(
        booster,
        Path(spec.bundles[0].path),
        features=feature_set.names,
        feature_set_digest=feature_set.digest,
        golden=rows.drop_columns(ACCOUNT_ID),
        about=about,
    )


def _first_rows(frames: Iterator[pa.Table]) -> pa.Table:
    """Whole key ranges until there are `MAX_TRAINING_ROWS`."""
    taken = [next(frames)]
    while sum(map(len, taken)) < MAX_TRAINING_ROWS and (frame := next(frames, None)) is not None:
        taken.append(frame)
    return pa.concat_tables(taken)
