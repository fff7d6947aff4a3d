"""Partitions unlike what the model knows: told of and scored, or held back by a declared limit while the others go on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from batchscore.events import PartitionAlerted
from batchscore.features.feature_set import read_feature_set
from batchscore.models.bounds import Bounds
from batchscore.models.bundle import ReasonTemplate
from batchscore.models.pack import About, pack_bundle
from batchscore.models.training import train
from batchscore.ports import RunRow
from batchscore.store import open_reader
from tests.small_world import NAMES, SmallWorld, make_small_world
from tests.whole_runs import Heard, walk


def pack(world: SmallWorld, *, reference: pa.Table | None = None, limits: dict[str, Bounds] | None = None) -> None:
    features = np.random.default_rng(1).gamma(1.5, 4.0, (400, len(NAMES))).astype(np.float32)
    table = pa.table({name: features[:, place] for place, name in enumerate(NAMES)})
    pack_bundle(
        train(features, (features[:, 0] > 6).astype(np.int32), NAMES, n_trees=5, depth=3),
        world.folder / "bounded",
        features=NAMES,
        feature_set_digest=read_feature_set(world.folder / "features.yaml").digest,
        golden=table[:32],
        about=About(
            name="bounded",
            reasons={name: ReasonTemplate(code=name, sentence=f"{name} is {{value}}") for name in NAMES},
            limits=limits or {},
        ),
        reference=reference,
    )


def go(world: SmallWorld) -> tuple[RunRow, Heard]:
    heard = Heard()
    return walk(world, heard=heard, bundles="[bounded]", partition_rows="400"), heard


@pytest.fixture
def world(tmp_path: Path) -> SmallWorld:
    return make_small_world(tmp_path, n_accounts=400)


def test_a_partition_unlike_the_reference_is_scored_and_told_by_feature(world: SmallWorld) -> None:
    pack(world, reference=pa.table({name: np.full(100, 1.5, np.float32) for name in NAMES}))
    row, heard = go(world)
    assert row.state == "finished"
    told = {event.alert for event in heard if isinstance(event, PartitionAlerted)}
    assert "feature_range bytes_7d" in told


def test_a_broken_limit_quarantines_the_partition(world: SmallWorld) -> None:
    pack(world, limits={"plan": Bounds(low=0, high=1, max_outside=0.1)})
    go(world)
    reader = open_reader(world.store)
    aside = reader.quarantined(reader.runs()[0].run_id)
    assert aside
    assert all("feature_limit" in partition.message and "plan" in partition.message for partition in aside)
