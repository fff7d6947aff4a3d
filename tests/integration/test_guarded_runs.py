"""What guards features in a run: a backfill's leak guard, and the functions that a plan pinned."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from batchscore.attempt import attempt
from batchscore.digest import KeyDigest
from batchscore.errors import Refused
from batchscore.executors.inline import InlineExecutor
from batchscore.features.feature_set import FeatureSet
from batchscore.operations.report import report_of, write_page
from batchscore.pipeline import run
from batchscore.plan import Plan, Stage
from batchscore.planner import make_plan
from batchscore.store import open_reader, open_store
from tests.commands import succeeded
from tests.small_world import SmallWorld, make_small_world, pack


@pytest.fixture
def world(tmp_path: Path) -> SmallWorld:
    return make_small_world(tmp_path, n_accounts=120)


def walk(plan: Plan) -> str:
    store = open_store(Path(plan.spec.store), "integer")
    return run(plan, executor=InlineExecutor(attempt), store=store, observer=lambda _: None).run_id


def guarded(world: SmallWorld, run_id: str) -> dict[str, int]:
    receipts = open_reader(world.store).receipts(run_id, Stage.SCORE)
    return {name: n for receipt in receipts for name, n in receipt.counts.items() if name.startswith("guarded")}


def test_a_backfill_makes_features_of_a_sample_again_with_all_that_came_later_poisoned(world: SmallWorld) -> None:
    run_id = walk(make_plan(world.spec(as_of="{from: 2026-01-06, to: 2026-01-14, every: 2d}")))
    ((name, n),) = guarded(world, run_id).items()
    assert name == "guarded 2026-01-10T00:00:00+00:00"
    assert 0 < n < world.n_accounts


def test_a_sweep_has_no_later_date_to_leak_from_and_is_not_guarded(world: SmallWorld) -> None:
    assert guarded(world, walk(make_plan(world.spec(as_of="2026-01-14")))) == {}


def test_accounts_of_whose_window_too_little_is_known_are_unscoreable_and_never_a_low_score(world: SmallWorld) -> None:
    features = world.folder / "features.yaml"
    scored = walk(make_plan(world.spec(as_of="[2026-01-05, 2026-01-14]")))  # without a floor: everybody
    features.write_text(f"coverage: 0.5\n{features.read_text()}")
    floored = walk(make_plan(world.spec(as_of="[2026-01-05, 2026-01-14]")))
    reader = open_reader(world.store)
    before, after = (report_of(reader, run_id, "store") for run_id in (scored, floored))
    assert before.proof is not None
    assert after.proof is not None
    young, old = after.proof.as_ofs
    assert after.proof_state == "closes"
    n = {name: KeyDigest.parse(getattr(young, name)).n for name in ("planned", "scored", "unscoreable")}
    assert 0 < n["scored"] < n["planned"]  # those of the last few days: of their short lives all is known
    assert n["scored"] + n["unscoreable"] == n["planned"]
    assert young.planned == before.proof.as_ofs[0].planned
    assert old.scored == before.proof.as_ofs[1].scored
    assert [line.tables["mails"] for line in after.coverage] == [6 / 14, 1.0]  # the first file has mails of two days before
    assert after.coverage[1].n_guarded > 0
    assert (before.coverage_floor, after.coverage_floor) == (None, 0.5)
    page = write_page(after, world.folder / "page.html").read_text()
    assert "less than 50 % is covered" in page
    assert "43 %" in page


def test_before_a_table_begins_nobody_is_scored_and_the_proof_closes(world: SmallWorld) -> None:
    features = world.folder / "features.yaml"
    features.write_text(f"coverage: 0.1\n{features.read_text()}")
    run_id = walk(make_plan(world.spec(as_of="2025-12-20")))
    proof = report_of(open_reader(world.store), run_id, "store").proof
    assert proof is not None
    (line,) = proof.as_ofs
    assert KeyDigest.parse(line.scored) == KeyDigest()
    assert line.unscoreable == line.planned
    assert proof.closes


def test_a_leak_ends_the_run_before_anything_is_released(world: SmallWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    def also_the_past(rollup: pa.Table, _as_of: datetime, _feature_set: FeatureSet) -> pa.Table:
        return rollup.slice(0, len(rollup) // 2)

    monkeypatch.setattr("batchscore.attempt.scoring.poisoned", also_the_past)
    with pytest.raises(Refused, match=r"leak_found: of mails_7d, bytes_7d"):
        walk(make_plan(world.spec()))
    assert open_reader(world.store).queue(None, limit=1) == ()


def test_a_plan_pins_its_functions_and_an_attempt_refuses_others(world: SmallWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    site = world.folder / "site"
    about = site / "pinned_rules-2.0.dist-info"
    about.mkdir(parents=True)
    module = site / "pinned_rules.py"
    module.write_text("def risk(frame):\n    return frame['mails_7d'] * 2 + frame['age']\n")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: pinned-rules\nVersion: 2.0\n")
    (about / "RECORD").write_text("pinned_rules.py,,\n")
    (about / "top_level.txt").write_text("pinned_rules\n")
    monkeypatch.syspath_prepend(site)
    path = world.folder / "features.yaml"
    path.write_text(path.read_text() + "  risk: {python: 'pinned_rules:risk', of: [mails_7d, age]}\n")
    (world.folder / "bundle").rename(world.folder / "bundle-before")
    pack(world.folder, np.random.default_rng(1))
    plan = make_plan(world.spec())
    assert plan.pinned["function pinned_rules:risk"].startswith("pinned-rules 2.0 sha256:")
    run_id = walk(plan)
    assert open_reader(world.store).run(run_id).state == "finished"
    module.write_text(module.read_text() + "# changed\n")
    code = (
        "import pathlib, sys; from batchscore.planner import make_plan; from batchscore.spec import read_spec; "
        "print(make_plan(read_spec(pathlib.Path(sys.argv[1]))).model_dump_json())"
    )
    planned = succeeded(sys.executable, "-c", code, world.spec_path, env=os.environ | {"PYTHONPATH": str(site)})
    newer = Plan.model_validate_json(planned)  # by a process that loads the file as it is now; this one has the old code
    assert plan.differences(newer.pinned) == ("function pinned_rules:risk",)
    other = newer.model_copy(update={"spec": plan.spec.model_copy(update={"store": str(world.folder / "other")})})
    with pytest.raises(Refused, match="was planned"):
        walk(other)
