"""Tiny models for the tests of `batchscore.models`: four features, a few shallow trees, trained once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xgboost as xgb

from batchscore.models.bundle import CheckedBundle, ReasonTemplate, read_checked, read_manifest
from batchscore.models.pack import About, pack_bundle
from batchscore.models.xgboost_scorer import XGBoostScorer
from batchscore.plan import Reference

NAMES = ("mails_7d", "distinct_recipients_7d", "age_days", "bounce_ratio")
REASONS = {
    "mails_7d": ReasonTemplate(code="volume", sentence="{value} mails in 7 days"),
    "distinct_recipients_7d": ReasonTemplate(code="volume", sentence="{value} different recipients in 7 days"),
    "age_days": ReasonTemplate(code="new_account", sentence="the account is {value} days old"),
    "bounce_ratio": ReasonTemplate(code="bounces", sentence="{value} of the mails bounced"),
}


def rows(n: int, seed: int = 0) -> pa.Table:
    """Rows of the four features, float32, a tenth of them missing."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(n, len(NAMES))).astype(np.float32) * np.array([100, 50, 400, 1], np.float32)
    values[random.random(values.shape) < 0.1] = np.nan
    return pa.table({name: values[:, place] for place, name in enumerate(NAMES)})


def train(n_rounds: int = 6, *, names: tuple[str, ...] | None = NAMES, **parameters: Any) -> xgb.Booster:
    table = rows(400)
    values = np.column_stack([table[name].to_numpy() for name in NAMES])
    labels = (np.nan_to_num(values[:, 0]) - np.nan_to_num(values[:, 2]) / 4 > 20).astype(float)
    data = xgb.DMatrix(values, labels, feature_names=None if names is None else list(names))
    return xgb.train({"objective": "binary:logistic", "max_depth": 3, "nthread": 1, **parameters}, data, n_rounds)


@pytest.fixture(scope="session")
def booster() -> xgb.Booster:
    return train()


@pytest.fixture(scope="session")
def trainer() -> Callable[..., xgb.Booster]:
    return train


@pytest.fixture(scope="session")
def make_rows() -> Callable[..., pa.Table]:
    return rows


def _pack(model: xgb.Booster | Path, folder: Path, **changes: Any) -> Reference:
    about = {"name": "abuse", "reasons": REASONS, **changes.pop("about", {})}
    arguments = {"features": NAMES, "feature_set_digest": "ab" * 32, "golden": rows(50, seed=1), **changes}
    return pack_bundle(model, folder, **arguments, about=About.model_validate(about))


@pytest.fixture(scope="session")
def pack() -> Callable[..., Reference]:
    return _pack


@pytest.fixture(scope="session")
def packed(booster: xgb.Booster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "bundle"
    _pack(booster, folder)
    return folder


@pytest.fixture
def bundle(packed: Path, tmp_path: Path) -> Path:
    """A folder with a good bundle, to be damaged."""
    return shutil.copytree(packed, tmp_path / "bundle")


@pytest.fixture
def checked(bundle: Path) -> CheckedBundle:
    return read_checked(read_manifest(bundle).reference)


@pytest.fixture
def reference(checked: CheckedBundle) -> XGBoostScorer:
    return XGBoostScorer(checked)
