"""The benchmarks' input: N accounts × 40 ready-made float32 features in Parquet, a model, and a spec over them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.spec import RunSpec, read_spec

N_FEATURES = 40
NAMES = [f"f{number:02d}" for number in range(N_FEATURES)]
N_FILES = 16


def block(seed: int, n: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Features and labels of ``n`` accounts: heavy tails, interactions, 5 % missing."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, N_FEATURES)).astype(np.float32)
    features[:, :10] = np.exp(features[:, :10])
    features[rng.random((n, N_FEATURES)) < 0.05] = np.nan
    known = np.nan_to_num(features)
    z = (
        -6
        + 1.2 * known[:, 0] * (known[:, 20] > 0)
        + 0.8 * np.log1p(known[:, 1])
        + known[:, 25] * known[:, 26]
        + 1.4 * (known[:, 2] > 3)
    )
    return features, (rng.random(n) < 1 / (1 + np.exp(-z))).astype(np.int32)


def write_accounts(folder: Path, n: int, *, n_files: int = N_FILES) -> Path:
    """``n`` accounts in ``n_files`` Parquet files below ``folder``; kept when they are there already."""
    out = folder / f"accounts-{n}-{n_files}"
    if not (out / "_done").exists():
        out.mkdir(parents=True, exist_ok=True)
        each = n // n_files
        for number in range(n_files):
            features, _ = block(number, each)
            ids = np.arange(number * each, (number + 1) * each, dtype=np.int64)
            table = pa.table({"account_id": ids, **{name: features[:, place] for place, name in enumerate(NAMES)}})
            pq.write_table(table, out / f"part-{number:04d}.parquet", row_group_size=65_536)
        (out / "_done").touch()
    return out


def write_model(folder: Path, *, n_trees: int = 500, depth: int = 6) -> Path:
    """The model file; kept when it is there already."""
    path = folder / f"model-{n_trees}-{depth}.ubj"
    if not path.exists():
        import xgboost

        features, labels = block(99, 200_000)
        matrix = xgboost.QuantileDMatrix(features, labels, feature_names=NAMES)
        parameters = {"objective": "binary:logistic", "max_depth": depth, "eta": 0.05, "tree_method": "hist", "nthread": 2}
        xgboost.train(parameters, matrix, n_trees).save_model(path)
    return path


def write_spec(
    folder: Path, accounts: Path, model: Path, store: Path, *, partition_rows: int = 50_000, extra: str = ""
) -> RunSpec:
    """A spec that scores ``accounts`` with ``model`` as of one date and flags 100; the bundle is packed beside the model."""
    from batchscore.features.feature_set import read_feature_set
    from batchscore.models.bundle import BUNDLE_FORMAT, ReasonTemplate
    from batchscore.models.pack import About, pack_bundle

    features = "\n".join(f"  {name}: {{column: {name}}}" for name in NAMES)
    (folder / "features.yaml").write_text(
        f"feature_set: wide\nversion: 1\naccount_id: integer\n"
        f"accounts: {{table: accounts, key: account_id, immutable: [{', '.join(NAMES)}]}}\nevents: []\nfeatures:\n{features}\n"
    )
    feature_set = read_feature_set(folder / "features.yaml")
    bundle = folder / f"bundle-{BUNDLE_FORMAT}-{model.stem}-{hashlib.sha256(feature_set.digest.encode()).hexdigest()[:8]}"
    if not bundle.exists():
        golden, _ = block(100, 64)
        pack_bundle(
            model,
            bundle,
            features=NAMES,
            feature_set_digest=feature_set.digest,
            golden=pa.table({name: golden[:, place] for place, name in enumerate(NAMES)}),
            about=About(
                name="wide", reasons={name: ReasonTemplate(code=name, sentence=f"{name} is {{value}}") for name in NAMES}
            ),
        )
    (folder / "spec.yaml").write_text(
        f"name: wide\nfeature_set: features.yaml\nsources:\n  accounts: {{parquet: {{path: {accounts}}}}}\nbundles: [{bundle}]\n"
        f"as_of: 2026-01-01\npolicy: {{queue: bench, budget: 100}}\nstore: {store}\npartition_rows: {partition_rows}\n{extra}"
    )
    return read_spec(folder / "spec.yaml")
