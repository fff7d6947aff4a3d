"""init: what it writes passes `check` as it is, leads to a queue, and never writes over anything."""

from __future__ import annotations

import json
import shlex
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from batchscore.cli.outputs import OUTPUTS
from batchscore.features.feature_set import read_feature_set
from batchscore.init.started import Started
from batchscore.store import open_reader
from tests.commands import batchscore
from tests.unit.cli.json_schema import faults

START = datetime(2026, 1, 1, tzinfo=UTC)
N_USERS, N_DAYS = 60, 40


def own_data(folder: Path) -> None:
    """Users in SQLite and in Parquet, messages in Parquet with naive times and a hostile column name."""
    folder.mkdir()
    users = [f"u{number:03d}" for number in range(N_USERS)]
    with sqlite3.connect(folder / "crm.db") as crm:
        crm.execute("CREATE TABLE users (user_id TEXT PRIMARY KEY, signed_up TEXT, plan INTEGER, country TEXT)")
        crm.executemany("INSERT INTO users VALUES (?, '2025-08-01 10:00:00', 1, 'NL')", [(user,) for user in users])
    crm.close()
    signed_up = pa.array([START - timedelta(days=100)] * N_USERS, pa.timestamp("ms"))
    pq.write_table(pa.table({"user_id": users, "signed_up": signed_up, "plan": [1] * N_USERS}), folder / "users.parquet")
    rows = [
        {
            "user_id": user,
            "sent_at": (START + timedelta(days=day, hours=number % 24)).replace(tzinfo=None),
            "size": 100 * (number % 7) + (5_000 if number % 5 == 0 else 0),
            "weight": number / 3,
            "peer_id": f"p{day * number % 50}",
            "is_spam": number % 5 == 0,
            "#: {odd}\x1b'\"": number,
        }
        for day in range(N_DAYS)
        for number, user in enumerate(users)
    ]
    (folder / "messages").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "messages" / "part.parquet")
    labels = {"user_id": users, "label": [int(number % 5 == 0) for number in range(N_USERS)]}
    pq.write_table(pa.table(labels), folder / "labels.parquet")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "data"
    own_data(folder)
    return folder


def started(folder: Path, *arguments: str, **environment: str) -> Started:
    done = batchscore(folder, "init", *arguments, "--json", **environment)
    assert done.returncode == 0, done.stderr
    return Started.model_validate_json(done.stdout)


def test_with_nothing_at_all_init_check_run_and_queue_work_at_once(tmp_path: Path) -> None:
    said = batchscore(tmp_path, "init", "first steps")
    assert said.returncode == 0, said.stderr
    commands = said.stdout.partition("next: ")[2].splitlines()
    assert shlex.split(commands.pop(0)) == ["cd", "first steps"]
    said_last = ""
    for command in commands:
        options = ["--inline"] if " run " in command else []
        done = batchscore(tmp_path / "first steps", *shlex.split(command)[1:], *options)
        assert done.returncode == 0, done.stderr
        said_last = done.stdout
    assert "1  0." in said_last
    assert len(open_reader(tmp_path / "first steps" / "store").queue("review", limit=100)) == 20


def test_editors_find_the_schema_that_the_first_line_names_and_nothing_wrong(tmp_path: Path) -> None:
    started(tmp_path)
    for name in ("spec.yaml", "features.yaml"):
        text = (tmp_path / name).read_text()
        schema = json.loads((tmp_path / text.splitlines()[0].partition("$schema=")[2]).read_text())
        written = json.loads(json.dumps(yaml.safe_load(text), default=str))
        assert faults(written, schema, schema) == []


@pytest.mark.parametrize("accounts", ["users.parquet", "sql:crm/users"])
def test_own_data_come_to_a_queue_by_the_commands_that_are_printed(own: Path, tmp_path: Path, accounts: str) -> None:
    environment = {"BATCHSCORE_URL_CRM": f"sqlite:///{own / 'crm.db'}"}
    place = accounts if accounts.startswith("sql:") else str(own / accounts)
    told = started(tmp_path, "--accounts", place, "--events", str(own / "messages"), **environment)
    guesses = {guess.of: guess.column for guess in told.guessed}
    assert guesses["accounts.key"] == guesses["events.key"] == "user_id"
    assert (guesses["accounts.created_at"], guesses["events.event_at"], guesses["events.known_at"]) == (
        "signed_up",
        "sent_at",
        "event_at",
    )
    unfinished = batchscore(tmp_path, "check", "spec.yaml", **environment)
    assert unfinished.returncode == 2
    assert "bundle_missing: no bundle yet" in unfinished.stderr
    assert "→ batchscore features build " in unfinished.stderr
    (tmp_path / "labels.parquet").write_bytes((own / "labels.parquet").read_bytes())
    for command in map(shlex.split, told.next):
        if command[0] == "python":
            subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
            continue
        done = batchscore(tmp_path, *command[1:], *(["--inline"] if "run" in command else []), **environment)
        assert done.returncode == 0, done.stderr


def test_what_a_filter_said_is_no_feature_and_floats_are_not_summed(own: Path, tmp_path: Path) -> None:
    started(tmp_path, "--accounts", str(own / "users.parquet"), "--events", str(own / "messages"))
    feature_set = read_feature_set(tmp_path / "features.yaml")
    assert feature_set.events[0].verdict == ("is_spam",)
    written = list(yaml.safe_load((tmp_path / "features.yaml").read_text())["features"].values())
    assert not [feature for feature in written if feature.get("sum") == "messages.weight"]
    assert [feature["window"] for feature in written if feature.get("distinct") == "messages.peer_id"] == ["28d"]
    assert [feature["window"] for feature in written if feature.get("sum") == "messages.#: {odd}\x1b'\""] == ["7d"]


def test_the_as_of_is_the_last_day_that_events_reach(own: Path, tmp_path: Path) -> None:
    started(tmp_path, "--accounts", str(own / "users.parquet"), "--events", str(own / "messages"))
    assert f"as_of: {START + timedelta(days=N_DAYS - 1):%Y-%m-%d} " in (tmp_path / "spec.yaml").read_text()


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_integers_that_are_times_are_declared_in_their_unit(tmp_path: Path, unit: str) -> None:
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    users = pa.table({"user_id": [1, 2], "created_at": [int(START.timestamp()) * per_second] * 2})
    pq.write_table(users, tmp_path / "users.parquet")
    started(tmp_path, "--accounts", "users.parquet")
    created = read_feature_set(tmp_path / "features.yaml").accounts.created_at
    assert created is not None
    assert (created.column, created.unit) == ("created_at", unit)


@pytest.mark.parametrize("taken", ["spec.yaml", "bundle", "train.py"])
def test_nothing_is_written_over_and_nothing_is_left(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("mine")
    refused = batchscore(tmp_path, "init")
    assert refused.returncode == 2
    assert f"{taken}: is there already" in refused.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / taken]
    assert (tmp_path / taken).read_text() == "mine"


def test_what_cannot_be_told_is_refused_and_leaves_nothing(own: Path, tmp_path: Path) -> None:
    refused = batchscore(tmp_path, "init", "new", "--accounts", str(own / "labels.parquet"))
    assert refused.returncode == 2
    assert "--events PATH" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_columns_without_data_are_a_mistake_in_the_command_line(tmp_path: Path) -> None:
    refused = batchscore(tmp_path, "init", "--key", "user_id")
    assert refused.returncode == 2
    assert "need --accounts" in refused.stderr


def test_json_is_of_its_model(tmp_path: Path) -> None:
    assert OUTPUTS["init"] is Started
    told = started(tmp_path)
    assert told.sample
    assert {path.name for path in tmp_path.iterdir()} == set(told.written)
