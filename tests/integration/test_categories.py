"""A run with a categorical feature: a plan's number is a category by value, and an unseen one is rejected alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xgboost as xgb

from batchscore.features.feature_set import read_feature_set
from batchscore.models.bundle import ReasonTemplate
from batchscore.models.pack import About, Categories, pack_bundle
from batchscore.store import open_reader
from tests.small_world import NAMES, SmallWorld, make_small_world
from tests.whole_runs import walk

PLANS = [2, 0, 1]  # in an order of their own: a code is no value


def with_plans_as_categories(world: SmallWorld) -> None:
    """One account has a plan that is none, and the model learns plans as categories."""
    path = world.folder / "accounts" / "part-0.parquet"
    table = pq.read_table(path)
    plans = [9, *table["plan"].to_pylist()[1:]]
    pq.write_table(table.set_column(table.column_names.index("plan"), "plan", pa.array(plans)), path)
    chance = np.random.default_rng(5)
    data = pd.DataFrame({name: chance.gamma(1.5, 4.0, 400).astype(np.float32) for name in NAMES})
    data["plan"] = pd.Categorical(chance.choice(PLANS, 400), categories=PLANS)
    labels = ((data.plan == 0) & (data.mails_7d > 4)).to_numpy()
    matrix = xgb.DMatrix(data, labels, enable_categorical=True)
    booster = xgb.train({"objective": "binary:logistic", "max_depth": 3, "nthread": 1}, matrix, 10)
    pack_bundle(
        booster,
        world.folder / "by-plan",
        features=NAMES,
        feature_set_digest=read_feature_set(world.folder / "features.yaml").digest,
        golden=pa.Table.from_pandas(data.astype({"plan": int})[:32]),
        about=About(
            name="by-plan",
            reasons={name: ReasonTemplate(code=name, sentence=f"{name} is {{value}}") for name in NAMES},
            categories={"plan": Categories(unseen="reject")},
        ),
    )


def test_a_number_is_scored_as_a_category_by_value_and_a_stranger_is_rejected_alone(tmp_path: Path) -> None:
    world = make_small_world(tmp_path, n_accounts=120)
    with_plans_as_categories(world)
    row = walk(world, bundles="[by-plan]")
    assert row.state == "finished"
    reader = open_reader(world.store)
    rejects = [pq.read_table(path) for path in (world.store / "score").rglob("*.parquet")]
    codes = [code for table in rejects if "code" in table.column_names for code in table["code"].to_pylist()]
    assert set(codes) == {"unseen_category"}
    assert 1 <= len(codes) <= len(row.plan.spec.as_ofs()), "one account, where it existed"
    ids = pc.unique(pa.concat_arrays([table["account_id"].combine_chunks() for table in rejects if "code" in table.column_names]))
    assert len(ids) == 1
    sentences = {reason.sentence for shown in reader.queue(None, limit=50) for reason in shown.flag.reasons}
    assert "plan is 0" in sentences
