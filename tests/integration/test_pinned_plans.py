"""What a plan pins: each part is named where it changed, and a plan writes nothing."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from batchscore.errors import Refused
from batchscore.planner import make_plan
from tests.small_world import SmallWorld


def test_a_plan_writes_nothing(world: SmallWorld) -> None:
    before = {path: path.stat().st_mtime_ns for path in world.folder.rglob("*")}
    spec = world.spec()
    (world.folder / "spec.yaml").touch()
    make_plan(spec)
    after = {path: path.stat().st_mtime_ns for path in world.folder.rglob("*")}
    assert set(before) == set(after)
    assert not world.store.exists()


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ("input", "source mails"),
        ("policy", "policy"),
        ("dates", "as-of dates"),
        ("features", "feature_contract"),
        ("bundle", "bundle_digest"),
    ],
)
def test_a_changed_pinned_part_is_named(world: SmallWorld, change: str, part: str) -> None:
    plan = make_plan(world.spec())
    changes = {}
    if change == "input":
        file = next((world.folder / "mails").rglob("*.parquet"))
        pq.write_table(pq.read_table(file).slice(1), file)
    elif change == "policy":
        changes = {"policy": "{queue: abuse, threshold: 0.25, budget: 20}"}
    elif change == "dates":
        changes = {"as_of": "2026-01-15"}
    elif change == "features":
        text = (world.folder / "features.yaml").read_text()
        (world.folder / "features.yaml").write_text(text.replace("window: 14d", "window: 13d"))
    elif change == "bundle":
        model = world.folder / "bundle" / "model.ubj"
        model.write_bytes(model.read_bytes()[:-1] + b"\0")
    try:
        assert plan.differences(make_plan(world.spec(**changes)).pinned) == (part,)
    except Refused as refusal:
        assert refusal.reason == part


def test_how_partitions_are_cut_is_no_part_of_a_plan(world: SmallWorld) -> None:
    assert make_plan(world.spec(partition_rows="7")).digest == make_plan(world.spec(partition_rows="70")).digest
