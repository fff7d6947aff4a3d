"""A run whose driver is gone says so at once, and one whose database fails is left to be resumed."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest

from batchscore.attempt import attempt
from batchscore.driver import driver_name
from batchscore.errors import BatchscoreError, DatabaseFailed, Interrupted
from batchscore.executors.inline import InlineExecutor
from batchscore.pipeline import run
from batchscore.planner import make_plan
from batchscore.store import Ledger, open_reader, open_store
from tests.commands import call
from tests.contract.store.conftest import make_plan as small_plan
from tests.small_world import SmallWorld, make_small_world

FULL = DatabaseFailed("write_failed", "the disk is full or failing", where="store", remedy="free space")


def test_a_killed_driver_of_this_host_is_gone_at_once_and_watch_ends_with_the_resume_command(tmp_path: Path) -> None:
    handle, row = open_store(tmp_path, "integer").open(small_plan(tmp_path), owner=f"{socket.gethostname()}:1:0")
    assert row.state == "running"
    assert open_reader(tmp_path).run(handle.run_id).driver_gone
    resume = f"batchscore resume {handle.run_id} --store {tmp_path}"
    watched = call("watch", handle.run_id, "--store", tmp_path)
    assert (watched.code, watched.stdout.strip().splitlines()[-1].endswith(resume)) == (5, True)
    assert "driver gone" in call("status", "--store", tmp_path).stdout
    looked = call("status", handle.run_id, "--store", tmp_path).stdout
    assert "driver gone" in looked
    assert resume in looked
    assert json.loads(call("status", "--json", "--store", tmp_path).stdout)["runs"][0]["driver_gone"]


def test_one_of_another_host_is_gone_when_its_lease_has_run_out_and_one_at_work_is_not(tmp_path: Path) -> None:
    here, _ = open_store(tmp_path, "integer").open(small_plan(tmp_path, name="here"), owner=driver_name())
    away, _ = open_store(tmp_path, "integer", lease_s=1).open(small_plan(tmp_path, name="away"), owner="elsewhere:1:0")
    reader = open_reader(tmp_path)
    assert not reader.run(away.run_id).driver_gone
    until = time.monotonic() + 30
    while not reader.run(away.run_id).driver_gone:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert not reader.run(here.run_id).driver_gone


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> SmallWorld:
    return make_small_world(tmp_path_factory.mktemp("world"), n_accounts=60)


def driven(world: SmallWorld) -> None:
    plan = make_plan(world.spec())
    run(plan, executor=InlineExecutor(attempt), store=open_store(world.store, "integer"), observer=lambda _event: None)


@pytest.mark.parametrize("closes", [True, False])
def test_a_database_that_fails_under_a_run_ends_it_with_5_and_it_is_resumed(
    world: SmallWorld, monkeypatch: pytest.MonkeyPatch, *, closes: bool
) -> None:
    def failing(*_arguments: object, **_named: object) -> None:
        raise FULL

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "commit", failing)
        if not closes:
            patched.setattr(Ledger, "close", failing)
        with pytest.raises(Interrupted, match=r"(?s)write_failed.*free space; then: batchscore resume r-") as stopped:
            driven(world)
    assert stopped.value.exit_code == 5
    (row,) = open_reader(world.store).runs()
    assert row.state == ("interrupted" if closes else "running")


def test_an_unknown_run_is_looked_for_where_the_reader_looked(world: SmallWorld) -> None:
    open_store(world.store, "integer")
    for run_id in ("r-00000000-9", "nonsense"):
        with pytest.raises(BatchscoreError, match=f"batchscore status --store {world.store}"):
            open_reader(world.store).run(run_id)
