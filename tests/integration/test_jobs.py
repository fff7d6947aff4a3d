"""jobs/: specs and feature sets that pass `check` beside the worlds they are for, and say what the demo says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from batchscore.demo.real_mail import DATABASE, PACKAGED, TRAINED_AS_OF, lay_out_real_mail
from batchscore.demo.training import train_bundle
from batchscore.demo.truth import Truth
from batchscore.demo.world import FEATURES, trained_as_of, write_world
from batchscore.features.feature_set import read_feature_set
from batchscore.spec import read_spec
from tests.commands import call

JOBS = Path(__file__).parents[2] / "jobs"
SPECS = sorted(path.relative_to(JOBS) for path in JOBS.glob("*/*.yaml") if path.name != "features.yaml")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with jobs/ and both worlds, each with its model; the simulated one is small."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(JOBS, folder / "jobs")
    lay_out_real_mail(folder / "demo")
    write_world(folder / "demo-100000", accounts=500, days=60, seed=7)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("BATCHSCORE_URL_DEMO", f"sqlite:///{folder / 'demo' / DATABASE}")
        for world, as_of in (("demo", TRAINED_AS_OF), ("demo-100000", trained_as_of(60))):
            train_bundle(read_spec(folder / world / "spec.yaml"), Truth(folder / world / "truth.parquet"), as_of)
    return folder


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_every_spec_passes_check_beside_its_world(clone: Path, spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHSCORE_URL_DEMO", f"sqlite:///{clone / 'demo' / DATABASE}")
    assert "no mistakes" in call("check", clone / "jobs" / spec).stdout


def test_there_is_a_backfill_and_a_sweep_for_each_world() -> None:
    assert {str(spec) for spec in SPECS} == {
        f"{world}/{verb}.yaml" for world in ("demo", "world") for verb in ("backfill", "sweep")
    }


def test_no_two_specs_have_one_name() -> None:
    names = [read_spec(JOBS / spec).name for spec in SPECS]
    assert len(set(names)) == len(names)


def test_feature_sets_are_those_that_the_demo_lays_out(tmp_path: Path) -> None:
    (tmp_path / "world.yaml").write_text(FEATURES)
    for ours, laid_out in (("demo", PACKAGED / "features.yaml"), ("world", tmp_path / "world.yaml")):
        assert read_feature_set(JOBS / ours / "features.yaml").digest == read_feature_set(laid_out).digest


def test_the_worlds_jobs_run_as_their_comments_say(clone: Path) -> None:
    backfill = call("backfill", clone / "jobs/world/backfill.yaml", "--from", "2026-02-20", "--to", "2026-03-01", "--inline")
    assert (backfill.code, "finished" in backfill.stdout) == (0, True)
    for day in ("2026-03-01", "2026-03-02"):
        swept = call("sweep", clone / "jobs/world/sweep.yaml", "--as-of", day, "--inline")
        assert f"watermark {day}" in swept.stdout
