"""features check, show and sample: what they tell, what they refuse, and that they write nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from batchscore.cli.features import features
from batchscore.errors import Refused
from tests.small_world import SmallWorld, make_small_world


@pytest.fixture
def world(tmp_path: Path) -> SmallWorld:
    return make_small_world(tmp_path, n_accounts=120)


def said(*arguments: str) -> str:
    done: Result = CliRunner().invoke(features, list(arguments), standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.output


def test_check_says_how_many_features_there_are_or_refuses_with_the_line(world: SmallWorld) -> None:
    path = world.folder / "features.yaml"
    assert said("check", str(path)).startswith("features.yaml: no mistakes; 8 features; digest ")
    path.write_text(path.read_text().replace("count: mails,", "count: mials,"))
    with pytest.raises(Refused, match="'mials' is no events table"):
        said("check", str(path))


def test_check_refuses_a_function_that_no_distribution_holds(world: SmallWorld) -> None:
    path = world.folder / "features.yaml"
    path.write_text(path.read_text() + "  risk: {python: 'no_such_rules:risk', of: [mails_7d]}\n")
    with pytest.raises(Refused) as refused:
        said("check", str(path))
    assert refused.value.reason == "python_feature"


def test_show_explains_every_feature_in_a_sentence(world: SmallWorld) -> None:
    path = str(world.folder / "features.yaml")
    text = said("show", path)
    assert "{value} different recipient in mails in 14 days\n  over: 14d up to the as-of\n  without events: 0" in text
    assert "error: exact up to 256, beyond it estimated" in text
    told = json.loads(said("show", path, "--json"))
    assert [feature["name"] for feature in told["features"]][:2] == ["mails_7d", "bytes_7d"]
    assert told["grain"] == "1d"
    assert "\naccounts: one row each" in text
    assert "however little the data reach back of 14 days of mails" in text
    assert "\nleaks: of a sample of each backfill" in text


def test_show_says_who_is_left_out_below_the_floor_and_which_row_of_a_history_speaks(world: SmallWorld) -> None:
    path = world.folder / "features.yaml"
    history = "history: {valid_from: since, valid_to: until}"
    path.write_text("coverage: 0.5\n" + path.read_text().replace("immutable: [plan]", history))
    told = json.loads(said("show", str(path), "--json"))
    assert "less than 50 % of 14 days of mails, or of its life" in told["coverage"]
    assert told["accounts"].startswith("a history: ")
    (plan,) = (feature for feature in told["features"] if feature["name"] == "plan")
    assert plan["nulls"] == "a null is missing; missing while no row of the history holds"


def test_sample_shows_the_true_features_of_a_few_accounts_and_leaves_nothing_behind(world: SmallWorld) -> None:
    before = sorted(world.folder.rglob("*"))
    sampled = json.loads(said("sample", str(world.spec_path), "--as-of", "2026-01-10", "-n", "7", "--json"))
    assert sorted(world.folder.rglob("*")) == before
    assert len(sampled["accounts"]) == 7
    as_of = datetime(2026, 1, 10, tzinfo=UTC)
    mails = pa.concat_tables([pq.ParquetFile(path).read() for path in (world.folder / "mails").rglob("*.parquet")])
    for account in sampled["accounts"]:
        mine = mails.filter(pc.equal(mails["id"], account["account_id"])).to_pylist()
        counted = [mail for mail in mine if as_of - timedelta(days=7) <= mail["at"] < as_of and mail["known"] < as_of]
        assert account["values"]["mails_7d"] == len(counted)
        assert account["values"]["bytes_7d"] == sum(mail["bytes"] for mail in counted)
        assert account["sentences"]["mails_7d"] == f"{len(counted)} mails in 7 days"
    assert sum(account["values"]["mails_7d"] for account in sampled["accounts"]) > 0
    assert "account " in said("sample", str(world.spec_path), "--as-of", "2026-01-10", "-n", "2")


@pytest.mark.parametrize("moment", ["2026-01-10T06:00:00Z", "2026-01-10T00:00:01Z"])
def test_sample_refuses_an_as_of_between_grains(world: SmallWorld, moment: str) -> None:
    with pytest.raises(Refused, match="is not a whole number of the feature set's grain"):
        said("sample", str(world.spec_path), "--as-of", moment)
