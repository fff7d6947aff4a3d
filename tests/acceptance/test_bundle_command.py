"""`batchscore bundle`: what a data scientist types to hand a model over, and what an operator types to look at one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore.models.bounds import Bounds
from batchscore.models.bundle_shown import BundleDiff, BundleShown, BundlesShown, BundleVerified
from batchscore.models.calibration import Sigmoid
from batchscore.models.training import train
from tests.commands import batchscore
from tests.small_world import NAMES, make_small_world


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small world, a model file and rows to pack."""
    folder = tmp_path_factory.mktemp("place")
    make_small_world(folder)
    chance = np.random.default_rng(3)
    features = chance.gamma(1.5, 4.0, (300, len(NAMES))).astype(np.float32)
    train(features, (features[:, 0] > 6).astype(np.int32), NAMES, n_trees=5, depth=3).save_model(folder / "model.json")
    pq.write_table(pa.table({name: features[:40, at] for at, name in enumerate(NAMES)}), folder / "rows.parquet")
    pq.write_table(pa.table({name: features[:, at] for at, name in enumerate(NAMES)}), folder / "reference.parquet")
    (folder / "more.yaml").write_text("calibration: {kind: sigmoid, slope: 2, intercept: -0.5}\n")
    (folder / "limits.yaml").write_text("limits: {age: {low: 0, max_missing: 0.25}}\n")
    (folder / "reasons.yaml").write_text("reasons:\n  burst: {code: bursts, sentence: 'bursts of {value}'}\n")
    return folder


PACK = ("bundle", "pack", "model.json", "--features", "features.yaml", "--golden", "rows.parquet")


def test_a_bundle_is_packed_shown_verified_and_compared(place: Path) -> None:
    asked = ("--out", "new.zip", "--reasons", "reasons.yaml", "--trained-as-of", "2026-01-01", "--iteration-range", "4", "--json")
    more = ("--calibration", "more.yaml", "--limits", "limits.yaml", "--reference", "reference.parquet")
    packed = batchscore(place, *PACK, *asked, *more)
    assert packed.returncode == 0, packed.stderr
    made = BundleShown.model_validate_json(packed.stdout)
    assert made.manifest.reasons["burst"].sentence == "bursts of {value}"
    assert made.manifest.reasons["age"].sentence == "the account is {value} days old"
    assert made.manifest.calibration == Sigmoid(slope=2, intercept=-0.5)
    by_name = {feature.name: feature for feature in made.manifest.features}
    assert by_name["age"].limits == Bounds(low=0, max_missing=0.25)
    assert all(feature.expected is not None for feature in by_name.values())
    assert (made.manifest.name, made.manifest.iteration_range) == ("small", (0, 4))

    shown = BundlesShown.model_validate_json(batchscore(place, "bundle", "show", "new.zip", "--json").stdout)
    assert shown.bundles[0].digest == made.digest
    of_spec = batchscore(place, "bundle", "show", "spec.yaml")
    assert "bundle small" in of_spec.stdout
    assert "mails 7d is {value}" in of_spec.stdout

    verified = BundleVerified.model_validate_json(batchscore(place, "bundle", "verify", "new.zip", "--json").stdout)
    assert verified.scorer == "compiled"
    last = ["golden rows, in place", "golden rows, DMatrix", "compiled scorer", "compiled explainer"]
    assert [check.name for check in verified.checks][-4:] == last
    assert "holds on" in batchscore(place, "bundle", "verify", "bundle").stdout

    compared = BundleDiff.model_validate_json(batchscore(place, "bundle", "diff", "bundle", "new.zip", "--json").stdout)
    assert not compared.same_trees
    assert {"n_trees", "reasons.burst.code"} <= {part.part for part in compared.differences}
    assert "reasons.burst.code: burst → bursts" in batchscore(place, "bundle", "diff", "bundle", "new.zip").stdout
    assert "equal trees" in batchscore(place, "bundle", "diff", "bundle", "bundle").stdout


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("bundle", "show", "nowhere"), "file_missing"),
        (("bundle", "verify", "rows.parquet"), "bundle_invalid"),
        ((*PACK, "--out", "bundle"), "already something"),
        ((*PACK, "--out", "x", "--trained-as-of", "yesterday"), "is not a date"),
        ((*PACK, "--out", "x", "--iteration-range", "9"), "iteration range"),
        ((*PACK, "--out", "x", "--reasons", "wrong.yaml"), "did you mean 'burst'"),
        ((*PACK, "--out", "x", "--categories", "categories.yaml"), "is no categorical feature"),
        ((*PACK, "--out", "x", "--reference", "rows.parquet"), "at least 100"),
        ((*PACK, "--out", "x", "--limits", "more.yaml"), "spec_invalid"),
        ((*PACK, "--out", "x", "--golden", "model.json"), "does not read as Parquet"),
    ],
)
def test_what_cannot_be_done_is_refused_and_leaves_nothing(place: Path, arguments: tuple[str, ...], word: str) -> None:
    (place / "wrong.yaml").write_text("reasons: {Burst: {code: c, sentence: s}}\n")
    (place / "categories.yaml").write_text("categories: {plan: {values: [1, 2], unseen: reject}}\n")
    refused = batchscore(place, *arguments)
    assert refused.returncode == 2
    assert word in refused.stderr
    assert not (place / "x").exists()


def test_a_changed_byte_does_not_verify(place: Path, tmp_path: Path) -> None:
    make_small_world(tmp_path, n_accounts=10)
    payload = bytearray((tmp_path / "bundle" / "model.ubj").read_bytes())
    payload[-100] ^= 1
    (tmp_path / "bundle" / "model.ubj").write_bytes(payload)
    refused = batchscore(tmp_path, "bundle", "verify", "bundle")
    assert refused.returncode == 2
    assert "bundle_digest" in refused.stderr


def test_a_run_scores_with_a_zipped_bundle(tmp_path: Path) -> None:
    world = make_small_world(tmp_path)
    import zipfile

    with zipfile.ZipFile(tmp_path / "bundle.zip", "w") as archive:
        for path in (tmp_path / "bundle").iterdir():
            archive.write(path, path.name)
    digest = json.loads(batchscore(tmp_path, "bundle", "show", "bundle", "--json").stdout)["bundles"][0]["digest"]
    world.spec(bundles="[bundle.zip]")
    assert batchscore(tmp_path, "run", "spec.yaml", "--inline").returncode == 0
    run_id = json.loads(batchscore(tmp_path, "status", "--json").stdout)["runs"][0]["run_id"]
    assert not json.loads(batchscore(tmp_path, "report", run_id, "--json").stdout)["gaps"]
    assert digest in json.loads(batchscore(tmp_path, "plan", "spec.yaml", "--json").stdout)["pinned"].values()
