"""Bundles: written whole or not at all, and refused when a single bit of them changes."""

from __future__ import annotations

import gc
import hashlib
import json
import re
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xgboost as xgb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchscore.errors import AttemptFailed, Refused
from batchscore.models import loading
from batchscore.models.bundle import GOLDEN, MANIFEST, ReasonTemplate, read_manifest
from batchscore.models.golden import MARGIN
from batchscore.models.loading import load_scorer
from batchscore.models.model_file import read_model_facts
from batchscore.plan import Reference
from tests.integration.models.refusals import reason

Pack = Callable[..., Reference]
Train = Callable[..., xgb.Booster]


def rewrite_manifest(folder: Path, **changes: Any) -> Reference:
    """Change the manifest and give its new digest, as an attacker or a careless hand would."""
    values = json.loads((folder / MANIFEST).read_bytes())
    payload = json.dumps({**values, **changes}).encode()
    (folder / MANIFEST).write_bytes(payload)
    return Reference(path=str(folder / MANIFEST), sha256=hashlib.sha256(payload).hexdigest())


def test_a_packed_bundle_reads_back_with_all_that_packing_was_told(pack: Pack, booster: xgb.Booster, tmp_path: Path) -> None:
    about = {"trained_as_of": "2002-08-01T00:00:00Z", "notes": {"base_rate": "0.4 %"}}
    reference = pack(booster, tmp_path / "b", about=about)
    found = read_manifest(tmp_path / "b")
    assert found.reference == reference
    assert found.digest == hashlib.sha256((tmp_path / "b" / MANIFEST).read_bytes()).hexdigest()
    assert found.manifest.names == tuple(booster.feature_names or ())
    assert found.manifest.written_by == found.manifest.packed_by == xgb.__version__
    assert found.manifest.iteration_range == (0, 6)
    assert found.manifest.notes == {"base_rate": "0.4 %"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b"]


def test_packing_the_same_booster_twice_gives_the_same_digest(pack: Pack, booster: xgb.Booster, tmp_path: Path) -> None:
    assert pack(booster, tmp_path / "a").sha256 == pack(booster, tmp_path / "b").sha256


@pytest.mark.parametrize("suffix", ["ubj", "json"])
def test_a_saved_file_keeps_its_bytes_and_scores(pack: Pack, booster: xgb.Booster, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"saved.{suffix}"
    booster.save_model(file)
    reference = pack(file, tmp_path / "b")
    assert (tmp_path / "b" / f"model.{suffix}").read_bytes() == file.read_bytes()
    assert load_scorer(reference).names == tuple(booster.feature_names or ())


def test_packing_never_overwrites(pack: Pack, bundle: Path, booster: xgb.Booster) -> None:
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    assert reason(lambda: pack(booster, bundle)) == "bundle_invalid"
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


def test_a_failed_write_leaves_nothing(pack: Pack, booster: xgb.Booster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(AttemptFailed, match="write_failed"):
        pack(booster, tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_reading_a_manifest_does_not_import_xgboost() -> None:
    modules = ("bundle", "contract", "reasons", "scorer")
    code = f"import sys, {', '.join(f'batchscore.models.{name}' for name in modules)}; sys.exit('xgboost' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(file=st.sampled_from(["model.ubj", GOLDEN, MANIFEST]), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_in_any_file_is_refused_by_digest(bundle: Path, file: str, place: float, bit: int) -> None:
    reference = Reference(path=str(bundle / MANIFEST), sha256=hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest())
    whole = (bundle / file).read_bytes()
    damaged = bytearray(whole)
    damaged[int(place * len(whole))] ^= 1 << bit
    try:
        (bundle / file).write_bytes(damaged)
        assert reason(lambda: load_scorer(reference, nthread=7)) == "bundle_digest"
        if file != MANIFEST:
            assert reason(lambda: read_manifest(bundle)) == "bundle_digest"
    finally:
        (bundle / file).write_bytes(whole)


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("file", ["model.ubj", GOLDEN])
def test_a_file_cut_short_is_refused_by_digest(bundle: Path, file: str, keep: float) -> None:
    whole = (bundle / file).read_bytes()
    (bundle / file).write_bytes(whole[: int(len(whole) * keep)])
    assert reason(lambda: read_manifest(bundle)) == "bundle_digest"


@pytest.mark.parametrize("file", ["model.ubj", GOLDEN, MANIFEST])
def test_a_lost_file_is_refused(bundle: Path, file: str) -> None:
    (bundle / file).unlink()
    assert reason(lambda: read_manifest(bundle)) == "file_missing"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"features": [{"name": name} for name in ("distinct_recipients_7d", "mails_7d", "age_days", "bounce_ratio")]},
            "feature_contract",
        ),
        ({"n_trees": 5}, "bundle_invalid"),
        ({"base_score": "[1E-1]"}, "bundle_invalid"),
        ({"written_by": "1.7.6"}, "bundle_invalid"),
        ({"iteration_range": [0, 7]}, "bundle_invalid"),
        ({"iteration_range": [1, 6]}, "bundle_invalid"),
        ({"iteration_range": [0, 5]}, "golden_mismatch"),
        ({"format": 1}, "bundle_invalid"),
        ({"objective": "binary:logitraw"}, "bundle_invalid"),
        ({"reasons": {}}, "bundle_invalid"),
        ({"unknown": 1}, "bundle_invalid"),
        ({"n_golden": 49}, "bundle_invalid"),
        ({"trained_as_of": "2002-08-01T00:00:00+02:00"}, "bundle_invalid"),
        ({"model": {"path": "../model.ubj", "sha256": "0" * 64, "n_bytes": 1}}, "bundle_invalid"),
    ],
)
def test_a_manifest_that_contradicts_its_bundle_is_refused(bundle: Path, changes: dict[str, Any], expected: str) -> None:
    reference = rewrite_manifest(bundle, **changes)
    assert reason(lambda: load_scorer(reference)) == expected


def test_a_manifest_with_a_key_twice_is_refused(bundle: Path) -> None:
    text = (bundle / MANIFEST).read_text()
    (bundle / MANIFEST).write_text(text[:-1] + ',"name":"other"}')
    assert reason(lambda: read_manifest(bundle)) == "bundle_invalid"


def test_a_control_character_in_a_sentence_is_refused(pack: Pack, booster: xgb.Booster, tmp_path: Path) -> None:
    reasons = {name: ReasonTemplate(code="c", sentence="\x1b[2J {value}") for name in booster.feature_names or ()}
    assert reason(lambda: pack(booster, tmp_path / "b", about={"reasons": reasons})) == "bundle_invalid"


@pytest.mark.parametrize("change", ["margin", "feature", "other bytes"])
def test_golden_rows_that_do_not_come_out_to_the_bit_are_refused(bundle: Path, change: str) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(bundle / GOLDEN)
    if change == "margin":
        margins = table[MARGIN].to_numpy().copy()
        margins[3] = np.nextafter(margins[3], np.float32(np.inf))
        table = table.set_column(table.column_names.index(MARGIN), MARGIN, pa.array(margins))
    elif change == "feature":
        table = table.set_column(0, "mails_7d", pa.array(table["mails_7d"].to_numpy()[::-1]))
    pq.write_table(table, bundle / GOLDEN)
    payload = (bundle / GOLDEN).read_bytes() if change != "other bytes" else b"PAR1 no"
    (bundle / GOLDEN).write_bytes(payload)
    entry = {"path": GOLDEN, "sha256": hashlib.sha256(payload).hexdigest(), "n_bytes": len(payload)}
    reference = rewrite_manifest(bundle, golden=entry)
    assert reason(lambda: load_scorer(reference)) == ("bundle_invalid" if change == "other bytes" else "golden_mismatch")


def test_a_worker_that_gives_other_bits_is_refused_with_its_cpu_and_the_packers_named(bundle: Path) -> None:
    values = json.loads((bundle / MANIFEST).read_bytes())
    reference = rewrite_manifest(bundle, packed_on={"architecture": "aarch64", "cpu": "Neoverse-N1"}, iteration_range=[0, 5])
    with pytest.raises(Refused, match=re.escape(values["packed_on"]["cpu"])) as caught:
        load_scorer(reference)
    assert caught.value.reason == "golden_mismatch"
    assert "Neoverse-N1 (aarch64)" in str(caught.value)


def test_another_model_under_the_manifest_is_caught_by_the_golden_rows(bundle: Path, trainer: Train) -> None:
    payload = bytes(trainer(eta=0.31, base_score=json.loads(read_manifest(bundle).manifest.base_score)[0]).save_raw("ubj"))
    (bundle / "model.ubj").write_bytes(payload)
    entry = {"path": "model.ubj", "sha256": hashlib.sha256(payload).hexdigest(), "n_bytes": len(payload)}
    assert reason(lambda: load_scorer(rewrite_manifest(bundle, model=entry))) == "bundle_digest"
    trees = read_model_facts(payload, where="model").forest_digest
    assert reason(lambda: load_scorer(rewrite_manifest(bundle, model=entry, forest_digest=trees))) == "golden_mismatch"


def test_a_missing_reason_or_feature_is_refused_with_the_nearest_name(pack: Pack, booster: xgb.Booster, tmp_path: Path) -> None:
    assert reason(lambda: pack(booster, tmp_path / "b", about={"reasons": {}})) == "bundle_invalid"
    with pytest.raises(Refused, match=r"did you mean 'Mails_7d'\?") as caught:
        pack(booster, tmp_path / "b", features=("Mails_7d", "distinct_recipients_7d", "age_days", "bounce_ratio"))
    assert caught.value.reason == "feature_contract"


def test_golden_rows_must_be_some_and_finite(
    pack: Pack, booster: xgb.Booster, make_rows: Callable[..., pa.Table], tmp_path: Path
) -> None:
    assert reason(lambda: pack(booster, tmp_path / "b", golden=make_rows(0))) == "bundle_invalid"
    endless = make_rows(2).set_column(0, "mails_7d", pa.array([1.0, np.inf], pa.float32()))
    assert reason(lambda: pack(booster, tmp_path / "b", golden=endless)) == "bundle_invalid"


def test_a_bundle_is_loaded_once_per_process(bundle: Path) -> None:
    reference = read_manifest(bundle).reference
    assert load_scorer(reference) is load_scorer(reference)
    assert load_scorer(reference) is not load_scorer(reference, nthread=2)


def test_a_process_keeps_the_bundles_that_it_used_last(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "KEPT", 2)
    reference = read_manifest(bundle).reference
    one, two = (load_scorer(reference, nthread=n) for n in (11, 12))
    gone = weakref.ref(two)
    del two
    assert load_scorer(reference, nthread=11) is one
    load_scorer(reference, nthread=13)
    gc.collect()
    assert load_scorer(reference, nthread=11) is one
    assert gone() is None
