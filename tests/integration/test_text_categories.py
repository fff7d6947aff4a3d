"""A category from the accounts' table to the reviewer: text in the sources, in the frame to train on, in the scores, in words."""

from __future__ import annotations

import re
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import xgboost as xgb
from click.testing import CliRunner

from batchscore.cli.main import cli
from batchscore.errors import PartitionError, Refused
from batchscore.features.feature_set import read_feature_set
from batchscore.models.bundle import ReasonTemplate
from batchscore.models.pack import About, Categories, pack_bundle
from batchscore.plan import Stage
from batchscore.planner import make_plan
from batchscore.ports import RunRow
from batchscore.sources.sql import read_pages
from batchscore.spec import SqlSource
from batchscore.store import open_reader
from batchscore.training.frame import build_frame
from tests.small_world import FEATURES, NAMES, SmallWorld, make_small_world
from tests.whole_runs import walk

KNOWN = ("de", "Österreich", "", "fr")  # in the order of the model's codes
LAST = datetime(2026, 1, 15, tzinfo=UTC)
ALL = [*NAMES, "country"]


def with_countries(world: SmallWorld) -> None:
    """Every account in a country, a few in none, and one in a country that no model has seen."""
    chance = np.random.default_rng(4)
    for number in range(3):
        path = world.folder / "accounts" / f"part-{number}.parquet"
        table = pq.read_table(path)
        countries = [[*KNOWN, None][place] for place in chance.integers(0, len(KNOWN) + 1, len(table))]
        if number == 0:
            countries[0] = "atlantis"
        held = pa.array(countries, pa.string())
        pq.write_table(table.append_column("country", held.dictionary_encode() if number == 1 else held), path)
    text = FEATURES.format(kind=world.kind).replace("immutable: [plan]", "immutable: [plan, country]")
    (world.folder / "features.yaml").write_text(text + "  country: {category: country}\n")


def frame_of(world: SmallWorld) -> pa.Table:
    """What a model is trained on."""
    build_frame(world.spec(), LAST, world.folder / "frame.parquet")
    return pq.read_table(world.folder / "frame.parquet")


def coded(frame: pa.Table) -> pd.DataFrame:
    data: pd.DataFrame = frame.drop_columns(["account_id"]).to_pandas()
    data["country"] = pd.Categorical(data["country"].where(data["country"].isin(KNOWN)), categories=list(KNOWN))
    return data.astype(dict.fromkeys(NAMES, np.float32))


def train_and_pack(world: SmallWorld, frame: pa.Table) -> xgb.Booster:
    data = coded(frame)
    labels = data["country"].isin(["Österreich", ""]).to_numpy()
    matrix = xgb.DMatrix(data, labels.astype(int), enable_categorical=True)
    booster = xgb.train({"objective": "binary:logistic", "max_depth": 3, "nthread": 1}, matrix, 10)
    pack_bundle(
        booster,
        world.folder / "by-country",
        features=ALL,
        feature_set_digest=read_feature_set(world.folder / "features.yaml").digest,
        golden=frame.filter(pc.is_in(frame["country"], pa.array(KNOWN)))[:32],
        about=About(
            name="by-country",
            reasons={name: ReasonTemplate(code=name, sentence=f"{name} is {{value}}") for name in ALL},
            categories={"country": Categories(values=KNOWN, unseen="reject")},
        ),
    )
    return booster


def outputs(world: SmallWorld, row: RunRow, role: str) -> pa.Table:
    receipts = open_reader(Path(row.plan.spec.store)).receipts(row.run_id, Stage.SCORE)
    paths = [output.path for receipt in receipts for output in receipt.outputs if output.role == role]
    tables = [pq.read_table(Path(row.plan.spec.store) / path).replace_schema_metadata(None) for path in paths]
    return pa.concat_tables(tables).sort_by([("as_of", "ascending"), ("account_id", "ascending")])


def as_sqlite(world: SmallWorld, monkeypatch: pytest.MonkeyPatch) -> str:
    """The accounts in a table of SQLite; the spec's sources with them."""
    accounts = pq.read_table(world.folder / "accounts").to_pylist()
    rows = [(row["id"], row["created_at"].isoformat(), row["plan"], row["country"]) for row in accounts]
    with sqlite3.connect(world.folder / "crm.db") as connection:
        connection.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, created_at TEXT, plan INTEGER, country TEXT)")
        connection.executemany("INSERT INTO accounts VALUES (?, ?, ?, ?)", rows)
    connection.close()
    monkeypatch.setenv("BATCHSCORE_URL_CRM", f"sqlite:///{world.folder / 'crm.db'}")
    return "{accounts: {sql: {url: crm, table: accounts}}, mails: {parquet: {path: mails}}}"


def test_a_category_of_text_is_scored_by_value_and_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_small_world(tmp_path, n_accounts=150)
    with_countries(world)
    frame = frame_of(world)
    booster = train_and_pack(world, frame)
    row = walk(world, bundles="[by-country]")
    scores = outputs(world, row, "scores")
    latest = scores.filter(pc.equal(scores["as_of"], pa.scalar(LAST, scores.schema.field("as_of").type)))
    expected = booster.predict(xgb.DMatrix(coded(frame), enable_categorical=True))
    ids = frame["account_id"].to_pylist()
    by_account = dict(zip(ids, expected.tolist(), strict=True))
    stranger = ids[frame["country"].to_pylist().index("atlantis")]
    assert dict(zip(latest["account_id"].to_pylist(), latest["score"].to_pylist(), strict=True)) == {
        account: score for account, score in by_account.items() if account != stranger
    }, "the bits that the model gives to the frame it was trained on"
    rejects = outputs(world, row, "rejects")
    assert set(rejects["code"].to_pylist()) == {"unseen_category"}
    assert set(rejects["account_id"].to_pylist()) == {stranger}
    said = {reason.sentence for shown in open_reader(world.store).queue(None, limit=50) for reason in shown.flag.reasons}
    assert {"country is Österreich", 'country is ""'} <= said
    in_sqlite = walk(world, bundles="[by-country]", sources=as_sqlite(world, monkeypatch), store="of-sqlite")
    assert outputs(world, in_sqlite, "scores") == scores, "a table of a database gives the same bits"


def test_a_sample_shows_names_as_they_are(tmp_path: Path) -> None:
    world = make_small_world(tmp_path, n_accounts=20)
    with_countries(world)
    shown = CliRunner().invoke(cli, ["features", "sample", str(world.spec_path), "--as-of", "2026-01-15", "-n", "20"])
    assert shown.exit_code == 0, shown.output
    assert re.search(r"country +Österreich  country is Österreich", shown.output)
    assert re.search(r"country +missing  country is missing", shown.output)


def test_a_model_that_wants_numbers_of_a_category_is_refused_by_name(tmp_path: Path) -> None:
    world = make_small_world(tmp_path, n_accounts=20)
    with_countries(world)
    text = (world.folder / "features.yaml").read_text()
    train_and_pack(world, frame_of(world))
    (world.folder / "features.yaml").write_text(text.replace("plan: {column: plan}", "plan: {category: plan}"))
    with pytest.raises(Refused, match="wants numbers of a feature that is made of text") as refused:
        make_plan(world.spec(bundles="[by-country]"))
    assert refused.value.reason == "feature_contract"


def test_a_column_of_numbers_is_no_category_and_one_of_text_no_number(tmp_path: Path) -> None:
    world = make_small_world(tmp_path, n_accounts=20)
    with_countries(world)
    text = (world.folder / "features.yaml").read_text()
    (world.folder / "features.yaml").write_text(text.replace("{category: country}", "{column: country}"))
    with pytest.raises(Refused, match=r"which is no number.*\{category: country\}"):
        build_frame(world.spec(), LAST, world.folder / "x.parquet")
    (world.folder / "features.yaml").write_text(text.replace("{column: plan}", "{category: plan}"))
    with pytest.raises(Refused, match=r"which is no text.*\{column: plan\}"):
        build_frame(world.spec(), LAST, world.folder / "x.parquet")


def test_sqlite_may_hold_a_number_where_a_name_is_wanted_and_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sqlite3.connect(tmp_path / "crm.db") as connection:
        connection.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, country)")
        connection.executemany("INSERT INTO accounts VALUES (?, ?)", [(1, "de"), (2, None), (3, 49)])
    connection.close()
    monkeypatch.setenv("BATCHSCORE_URL_CRM", f"sqlite:///{tmp_path / 'crm.db'}")
    world = make_small_world(tmp_path / "world", n_accounts=20)
    with_countries(world)
    accounts = read_feature_set(world.folder / "features.yaml").accounts.model_copy(update={"created_at": None})
    source = SqlSource(url="crm", table="accounts")
    with pytest.raises(PartitionError, match="no text"):
        list(read_pages(source, accounts, ("country",), "integer", (None, 3), categories=("country",)))
    pages = list(read_pages(source, accounts, ("country",), "integer", (None, 2), categories=("country",)))
    assert pages[0][0]["country"].to_pylist() == ["de", None]
