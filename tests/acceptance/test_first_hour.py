"""A newcomer's first hour with data of their own: each error says what to do, and doing what it says works.

Taken literally: the test reads the remedy out of the message and does that. (`make demo` on a bare machine is tried by hand.)
"""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore.store import open_reader
from tests.acceptance.real_cluster import RealCluster
from tests.commands import batchscore
from tests.small_world import SmallWorld, make_small_world


@pytest.fixture
def world(tmp_path: Path) -> SmallWorld:
    """Mails in Parquet, accounts in a table of a database that the spec only names."""
    made = make_small_world(tmp_path)
    accounts = pa.concat_tables(pq.read_table(file) for file in (tmp_path / "accounts").iterdir())
    with sqlite3.connect(tmp_path / "crm.db") as crm:
        crm.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, created_at TEXT, plan INTEGER)")
        rows = ((row["id"], row["created_at"].isoformat(), row["plan"]) for row in accounts.to_pylist())
        crm.executemany("INSERT INTO users VALUES (?, ?, ?)", rows)
    crm.close()
    made.text["sources"] = "{accounts: {sql: {url: crm, table: users}}, mails: {parquet: {path: mails}}}"
    made.spec()
    return made


def remedies(complaint: str) -> str:
    """What the message says to do: everything behind its arrows."""
    found = "\n".join(line.partition("→ ")[2] for line in complaint.splitlines() if "→ " in line)
    assert found, complaint
    return found


def test_own_data_becomes_a_queue_by_doing_what_each_error_says(world: SmallWorld) -> None:
    folder = world.folder
    refused = batchscore(folder, "check", "spec.yaml")
    assert (refused.returncode, "BS-103" in refused.stderr) == (2, True)
    variable = re.findall(r"export (\w+)=", remedies(refused.stderr))[0]
    secret = {variable: f"sqlite:///{folder}/crm.db"}

    wrong, right = "byte_count", "bytes"
    for file in (folder / "mails").rglob("*.parquet"):
        rename(file, right, wrong)
    refused = batchscore(folder, "check", "spec.yaml", **secret)
    assert (refused.returncode, "BS-203" in refused.stderr) == (2, True)
    assert right in refused.stderr
    assert "files" in remedies(refused.stderr)
    for file in (folder / "mails").rglob("*.parquet"):
        rename(file, wrong, right)
    assert batchscore(folder, "check", "spec.yaml", **secret).returncode == 0
    assert not world.store.exists(), "nothing that was refused has written anything"

    done = batchscore(folder, "run", "spec.yaml", "--inline", **secret)
    assert done.returncode == 0, done.stderr
    command = next(line for line in done.stdout.splitlines() if "batchscore queue" in line).split()
    queue = batchscore(folder, *command[command.index("queue") :])
    assert queue.stdout.count("account ") == 20


def test_a_mistyped_column_is_told_with_the_name_that_was_meant(world: SmallWorld) -> None:
    secret = {"BATCHSCORE_URL_CRM": f"sqlite:///{world.folder}/crm.db"}
    for file in (world.folder / "mails").rglob("*.parquet"):
        rename(file, "recipient", "recipients")
    refused = batchscore(world.folder, "check", "spec.yaml", **secret)
    assert "did you mean 'recipients'" in remedies(refused.stderr)


@pytest.mark.slow
def test_a_dead_scheduler_is_started_or_left_out_as_the_error_says(world: SmallWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = {"BATCHSCORE_URL_CRM": f"sqlite:///{world.folder}/crm.db"}
    cluster = RealCluster(world.folder)
    refused = batchscore(world.folder, "run", "spec.yaml", "--scheduler", cluster.address, **secret)
    assert (refused.returncode, "BS-501" in refused.stderr) == (2, True)
    assert not world.store.exists()
    assert "start it (dask scheduler), or leave --scheduler out" in remedies(refused.stderr)
    left_out = batchscore(world.folder, "run", "spec.yaml", **secret)
    assert left_out.returncode == 0, left_out.stderr
    monkeypatch.setenv("BATCHSCORE_URL_CRM", secret["BATCHSCORE_URL_CRM"])  # workers read a live table with a secret of their own
    with cluster:
        wait_for_workers(cluster.address)
        started = batchscore(world.folder, "run", "spec.yaml", "--again", "--scheduler", cluster.address, **secret)
    assert started.returncode == 0, started.stderr
    assert [row.state for row in open_reader(world.store).runs()] == ["finished", "finished"]


def rename(file: Path, old: str, new: str) -> None:
    mails = pq.read_table(file, partitioning=None)
    pq.write_table(mails.rename_columns([new if name == old else name for name in mails.column_names]), file)


def wait_for_workers(address: str) -> None:
    from distributed import Client

    with Client(address, timeout=60, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
