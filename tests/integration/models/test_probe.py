"""A model that kills or holds whoever loads it kills or holds a child, and is refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import xgboost as xgb

from batchscore.models import first_load
from batchscore.models.bundle import read_manifest
from batchscore.models.contract import Matrix
from batchscore.models.loading import load_scorer
from batchscore.models.probe import require_survivor
from tests.integration.models.corrupted import SILENT, WORKER_DIED, outcomes
from tests.integration.models.refusals import reason

ROWS = np.array([[1, 2, 3, np.nan], [4, 5, np.nan, 6]], np.float32)


def probe(model: bytes, rows: Matrix = ROWS, **limits: float) -> Matrix:
    return require_survivor(model, rows, 6, where="model", **limits)


def test_the_child_gives_the_margins_of_this_process(booster: xgb.Booster) -> None:
    expected = booster.inplace_predict(ROWS, predict_type="margin", validate_features=False)
    assert probe(bytes(booster.save_raw("ubj"))).tobytes() == expected.tobytes()


def child_that(monkeypatch: pytest.MonkeyPatch, folder: Path, *lines: str) -> None:
    """Put another program in the child's place."""
    program = folder / "child.py"
    program.write_text("\n".join(("import os, sys, time, resource", *lines)))
    monkeypatch.setattr(first_load, "__file__", str(program))


@pytest.mark.parametrize(
    "line",
    [
        "os.kill(os.getpid(), 11)",
        "os.abort()",
        "sys.exit(1)",
        "sys.exit(0)",
        "bytes(1 << 62)",
        "sys.stdout.buffer.write(bytes(17))",
    ],
)
def test_a_child_that_dies_or_answers_by_half_is_a_refusal(
    booster: xgb.Booster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str
) -> None:
    child_that(monkeypatch, tmp_path, line)
    assert reason(lambda: probe(bytes(booster.save_raw("ubj")))) == "model_crash"


def test_a_child_that_does_not_end_is_ended(booster: xgb.Booster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    child_that(monkeypatch, tmp_path, "time.sleep(100)")
    assert reason(lambda: probe(bytes(booster.save_raw("ubj")), timeout_s=0.3)) == "model_crash"


def test_answers_that_contradict_each_other_are_a_refusal(
    booster: xgb.Booster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    child_that(monkeypatch, tmp_path, "import struct", "sys.stdout.buffer.write(struct.pack('<6f', 1, 2, 1, 3, 1, 2))")
    assert reason(lambda: probe(bytes(booster.save_raw("ubj")))) == "model_crash"


def test_the_child_has_no_secret(booster: xgb.Booster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BATCHSCORE_URL_CRM", "sqlite:///secret")
    child_that(monkeypatch, tmp_path, "sys.exit(0 if 'BATCHSCORE_URL_CRM' in os.environ else 3)")
    assert reason(lambda: probe(bytes(booster.save_raw("ubj")))) == "bundle_invalid"


def test_what_xgboost_itself_refuses_is_told_apart(booster: xgb.Booster) -> None:
    assert reason(lambda: probe(b'{"learner": 1}')) == "bundle_invalid"


def test_the_child_may_not_take_all_memory(booster: xgb.Booster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchscore.models.probe.BASE_BYTES", 100 << 20)  # less than it has when it starts
    rows = np.zeros((1 << 22, 4), np.float32)
    assert reason(lambda: probe(bytes(booster.save_raw("ubj")), rows)) == "model_crash"


def test_a_worker_probes_a_bundle_once(bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = (bundle / "manifest.json").read_text()
    (bundle / "manifest.json").write_text(text + "\n")  # a digest of its own
    reference = read_manifest(bundle).reference
    load_scorer(reference)
    child_that(monkeypatch, tmp_path, "os.abort()")
    assert load_scorer(reference, route="xgboost").bundle_digest == reference.sha256


def test_damaged_models_kill_no_worker_and_score_nothing_silently(packed: Path, tmp_path: Path) -> None:
    found = outcomes(packed, tmp_path, 12, "file")
    assert sum(found.values()) == 12
    assert not found[WORKER_DIED]
    assert not found[SILENT]
    assert any(name.startswith("refused") for name in found)


def test_a_damaged_model_under_a_wholly_repaired_manifest_kills_no_worker(packed: Path, tmp_path: Path) -> None:
    assert not outcomes(packed, tmp_path, 12, "all")[WORKER_DIED]


MANY = 1_000 if os.environ.get("BATCHSCORE_EVERY_FAULT") else 200  # `make chaos` has all, as has `make bench ARGS=bundle`


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_damaged_models_kill_no_worker_and_score_nothing_silently(packed: Path, tmp_path: Path) -> None:
    found = outcomes(packed, tmp_path, MANY, "file", first_seed=5_000)
    assert not found[WORKER_DIED]
    assert not found[SILENT]
