"""Options of commands that no other test gives: each does what its help says, and a wrong one is a mistake in the command."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest

from batchscore.errors import Refused
from batchscore.settings import database_url
from batchscore.store import open_reader
from tests.commands import call
from tests.mysql_server import MySqlServer
from tests.run_digest import run_digest
from tests.small_world import SmallWorld, make_small_world


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> SmallWorld:
    """A run of the world's spec, and another of a larger budget."""
    world = make_small_world(tmp_path_factory.mktemp("finished"), n_accounts=150)
    for policy in ("{queue: abuse, budget: 8}", "{queue: other, budget: 30}"):
        world.spec(policy=policy, release="none")
        assert call("run", world.spec_path, "--inline").code == 0
    return world


def run_ids(world: SmallWorld) -> list[str]:
    return [row.run_id for row in reversed(open_reader(world.store).runs())]


def test_xgboost_alone_gives_the_bits_of_the_fastest_scorer(world: SmallWorld) -> None:
    digests = set()
    for scorer in ("fastest", "xgboost"):
        world.spec(store=scorer)
        assert call("run", world.spec_path, "--inline", "--scorer", scorer, "--stall-limit", "5", "--max-wait", "1").code == 0
        (run_id,) = (row.run_id for row in open_reader(world.folder / scorer).runs())
        digests.add(run_digest(world.folder / scorer, run_id))
    assert len(digests) == 1


def test_a_deadline_is_a_time_of_day_of_a_zone_or_a_moment(world: SmallWorld) -> None:
    for wrong in ("soon", "25:00", "06:00 Middle/Earth"):
        with pytest.raises(click.UsageError, match=r"no deadline|zone"):
            call("run", world.spec_path, "--inline", "--deadline", wrong)
    assert not world.store.exists()
    assert call("run", world.spec_path, "--inline", "--deadline", "2099-01-31T06:00:00+01:00").code == 0
    row = open_reader(world.store).runs()[0]
    assert row.deadline_at == datetime(2099, 1, 31, 5, tzinfo=UTC)
    assert row.late_since is None


def test_a_backfill_over_the_first_days_there_are_finds_nobody_there(world: SmallWorld) -> None:
    days = ("--from", "0001-01-01", "--to", "0001-01-02", "--every", "1d")
    assert call("backfill", world.spec_path, *days, "--inline").code == 0
    assert open_reader(world.store).runs()[0].state == "finished"


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "SPEC", "--inline", "--stall-limit", "-1"],
        ["run", "SPEC", "--inline", "--max-wait", "never"],
        ["run", "SPEC", "--inline", "--workers", "2"],
        ["run", "SPEC", "--inline", "--accept", "xgboost"],
        ["run", "SPEC", "--inline", "--metrics", "nowhere"],
        ["run", "SPEC", "--inline", "--max-wait", "nan"],
        ["run", "SPEC", "--inline", "--stall-limit", "inf"],
        ["threshold", "RUN", "--precision", "nan"],
        ["threshold", "RUN", "--reviews", "inf"],
        ["queue", "events", "--after", str(2**63)],
        ["status", "--rejected"],
        ["status", "RUN", "--rejected", "--quarantined"],
        ["compare", "RUN"],
        ["compare", "RUN", "RUN", "--bundle", "x"],
        ["report", "RUN", "--json", "--html", "page.html"],
        ["retry", "RUN"],
        ["retry", "RUN", "--rejected", "--apply", "--json"],
        ["explain", "RUN", "--account", "1", "--as-of", "yesterday"],
        ["backfill", "SPEC", "--from", "2026-01-15", "--to", "2026-01-08", "--every", "1d", "--inline"],
        ["backfill", "SPEC", "--from", "2026-01-08", "--to", "2026-01-15", "--every", "daily", "--inline"],
        ["features", "build", "SPEC", "--out", "frame.parquet"],
        ["features", "build", "SPEC", "--as-of", "2026-01-15", "--mature", "7d", "--out", "frame.parquet"],
        ["queue", "import"],
        ["queue", "claim", "--by", "ann", "--for", "soon"],
        ["pause", "RUN", "--by", "two\nlines"],
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_a_mistake_in_the_command_and_nothing_is_done(
    finished: SmallWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    said = {"SPEC": str(finished.spec_path), "RUN": run_ids(finished)[0]}
    store = [] if "SPEC" in arguments else ["--store", str(finished.store)]
    with pytest.raises(click.UsageError) as mistake:
        call(*(said.get(word, word) for word in arguments), *store)
    assert not isinstance(mistake.value, click.NoSuchOption)
    assert "No such command" not in mistake.value.format_message()
    assert list(tmp_path.iterdir()) == []
    assert len(run_ids(finished)) == 2


def test_runs_are_compared_at_the_budget_and_with_as_many_disagreements_as_asked(finished: SmallWorld) -> None:
    one, other = run_ids(finished)
    asked = ("compare", one, other, "--store", finished.store, "--json")
    for budget, sample in ((5, 0), (12, 3)):
        found = json.loads(call(*asked, "--budget", str(budget), "--sample", str(sample)).stdout)
        assert {(pair["budget"], pair["n_a"], pair["n_b"]) for pair in found["dates"]} == {(budget, budget, budget)}
        assert len(found["sample"]) <= sample
    assert {pair["budget"] for pair in json.loads(call(*asked).stdout)["dates"]} == {8}, "as many as the first run selected"


def test_clean_leaves_what_is_younger_than_its_grace_and_deletes_only_when_told(finished: SmallWorld, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(finished.store, store)
    orphan = next(path for path in (store / "score").rglob("*.parquet")).with_name("0" * 32 + ".parquet")
    orphan.write_bytes(b"left by an attempt that lost")
    hours_ago = datetime.now(UTC).timestamp() - 5 * 3_600
    os.utime(orphan, (hours_ago, hours_ago))
    assert call("clean", "--store", store).stdout.startswith("0 file(s) would be deleted"), "a day is the default"
    shown = call("clean", "--store", store, "--grace-hours", "4").stdout
    assert str(orphan.relative_to(tmp_path)) in shown
    assert "1 file(s) would be deleted: --apply deletes them" in shown
    assert orphan.exists()
    done = json.loads(call("clean", "--store", store, "--grace-hours", "4", "--apply", "--json").stdout)
    assert done["deleted"]
    assert [Path(path).name for path in done["paths"]] == [orphan.name]
    assert not orphan.exists()
    assert call("clean", "--store", store, "--grace-hours", "4").stdout.startswith("0 file(s)")


def test_an_account_no_queue_knows_is_told_as_such_whatever_its_id(world: SmallWorld) -> None:
    assert call("run", world.spec_path, "--inline").code == 0
    for unknown in ("4242424242", str(2**64 - 1)):
        with pytest.raises(Refused, match="flag_absent") as refusal:
            call("queue", "show", unknown, "--store", world.store)
        assert unknown not in str(refusal.value)
        with pytest.raises(Refused) as refusal:
            call("queue", "decide", unknown, "cleared", "--saw", "1", "--by", "ann", "--store", world.store)
        assert refusal.value.reason in {"flag_absent", "id_too_large"}
        assert unknown not in str(refusal.value)


@pytest.mark.parametrize(
    ("absent", "arguments", "extra"),
    [
        ("ecs_logging", ["run", "SPEC", "--inline", "--log", "run.log"], "batchscore[logs]"),
        ("prometheus_client", ["run", "SPEC", "--inline", "--metrics-textfile", "run.prom"], "batchscore[metrics]"),
        ("cryptography", ["cluster", "certs", "tls"], "batchscore[cluster]"),
    ],
)
def test_what_needs_an_extra_that_is_not_installed_says_which_before_anything_is_done(
    world: SmallWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: str, arguments: list[str], extra: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(Refused, match=re.escape(extra)) as refusal:
        call(*(str(world.spec_path) if word == "SPEC" else word for word in arguments))
    assert refusal.value.reason == "extra_missing"
    assert sorted(tmp_path.iterdir()) == before


def test_a_url_may_stand_in_a_file_of_its_own_and_one_that_cannot_be_read_is_told_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BATCHSCORE_URL_OWN_DATA", raising=False)
    file = tmp_path / "url"
    file.write_text("sqlite:////somewhere/crm.db\n")
    monkeypatch.setenv("BATCHSCORE_URL_OWN_DATA_FILE", str(file))
    assert database_url("own-data") == "sqlite:////somewhere/crm.db"
    file.unlink()
    with pytest.raises(Refused, match="BATCHSCORE_URL_OWN_DATA_FILE cannot be read") as refusal:
        database_url("own-data")
    assert refusal.value.reason == "secret_missing"
    assert str(file) not in str(refusal.value)


def test_tables_of_a_store_in_its_folder_are_nobodys_to_upgrade(world: SmallWorld) -> None:
    for verb in ("upgrade", "grants"):
        with pytest.raises(Refused, match="names no database"):
            call("db", verb, world.spec_path)


@pytest.mark.mysql
def test_the_migrators_commands_print_show_and_make_the_tables(
    world: SmallWorld, mysql_server: MySqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = mysql_server.make_database()
    monkeypatch.setenv("BATCHSCORE_URL_REVIEW", url)
    world.spec(database="review")
    script = call("db", "upgrade", world.spec_path, "--sql").stdout
    assert "CREATE TABLE runs" in script
    tables = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE()"
    database = url.rpartition("/")[2].partition("?")[0]
    assert mysql_server.execute(tables, database=database) == [(0,)], "only printed"
    made = json.loads(call("db", "upgrade", world.spec_path, "--json").stdout)
    assert (made["database"], made["account_id"], made["script"]) == ("review", "integer", None)
    assert f"tables of version {made['version']}" in call("db", "upgrade", world.spec_path).stdout, "once more is nothing"
    assert "already" in call("db", "upgrade", world.spec_path, "--sql").stdout
    granted = json.loads(call("db", "grants", world.spec_path, "--json").stdout)["grants"]
    assert set(granted) == {"migrator", "committer", "reviewer", "reader"}
    said = call("db", "grants", world.spec_path).stdout
    assert all(f"{statement};" in said for statements in granted.values() for statement in statements)
    assert call("run", world.spec_path, "--inline").code == 0
    monkeypatch.setenv("BATCHSCORE_URL_ELSEWHERE", mysql_server.make_database())
    world.spec(database="elsewhere")
    with pytest.raises(Refused, match="has its runs in review already"):
        call("db", "upgrade", world.spec_path)
