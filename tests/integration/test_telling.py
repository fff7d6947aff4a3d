"""What a run tells beside the terminal, by the real command: an ECS log of driver and workers, metrics; nothing of a person."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchscore.errors import Refused
from tests.commands import batchscore, call
from tests.small_world import SmallWorld, make_small_world

URL = "sqlite:////nowhere/canary-hunter2.db"


@dataclass(frozen=True, kw_only=True)
class Told:
    world: SmallWorld
    run_id: str
    stderr: str
    lines: list[dict[str, Any]]
    textfile: str


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """A run on two workers, with a log and a textfile; ids are text."""
    folder = tmp_path_factory.mktemp("told")
    world = make_small_world(folder, n_accounts=120, kind="string")
    done = batchscore(
        folder, "run", str(world.spec_path), "--workers", "2", "--log", "run.log", "--metrics-textfile", "small.prom", "--json",
        BATCHSCORE_URL_CANARY=URL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (folder / "run.log").read_text().splitlines()]
    run_id = json.loads(done.stdout)["run"]["run_id"]
    return Told(world=world, run_id=run_id, stderr=done.stderr, lines=lines, textfile=(folder / "small.prom").read_text())


def test_every_line_is_ecs(told: Told) -> None:
    for line in told.lines:
        assert {"@timestamp", "log.level", "message", "ecs.version"} <= line.keys()
        assert line["service"]["name"] == "batchscore"


def test_attempts_say_on_their_worker_which_run_stage_partition_and_attempt(told: Told) -> None:
    attempts = [line for line in told.lines if line["message"] == "attempt finished"]
    assert {line["batchscore"]["stage"] for line in attempts} >= {"freeze", "rollup", "score", "reasons"}
    assert {line["batchscore"]["run_id"] for line in attempts} == {told.run_id}
    assert all(len(line["batchscore"]["attempt"]) == 32 and line["batchscore"]["partition"] >= 0 for line in attempts)
    driver = next(line["process"]["pid"] for line in told.lines if line["message"] == "run opened")
    assert driver not in {line["process"]["pid"] for line in attempts}


def test_dasks_own_loggers_are_in_it(told: Told) -> None:
    loggers = {line["log"]["logger"] for line in told.lines}
    assert any(name.startswith("distributed.worker") for name in loggers), loggers
    assert any(name.startswith("distributed.scheduler") for name in loggers), loggers


def test_the_log_tells_the_story_from_opened_to_ended(told: Told) -> None:
    messages = [line["message"] for line in told.lines if line["log"]["logger"] == "batchscore.run"]
    assert messages[0] == "run opened"
    assert messages[-2:] == ["stage finished", "command ended"] or messages[-2:] == ["released", "command ended"]
    assert told.lines[-1]["log.level"] in {"info", "warning"}


def test_no_account_value_or_secret_is_told_anywhere(told: Told) -> None:
    accounts = pq.read_table(told.world.folder / "accounts")["id"].to_pylist()
    everything = json.dumps(told.lines, ensure_ascii=False) + told.textfile + told.stderr
    assert [account for account in accounts if account in everything] == []
    assert "canary-hunter2" not in everything
    assert "INSERT INTO" not in everything, "SQLAlchemy's statements, and so their values, are in the log"


def test_the_textfile_says_how_it_ended(told: Told) -> None:
    assert 'batchscore_run_exit_code{spec="small"} 0.0' in told.textfile
    assert 'batchscore_run_proof_closes{spec="small"} 1.0' in told.textfile
    assert 'batchscore_run_flags{outcome="released",spec="small"}' in told.textfile


def test_a_refused_run_leaves_its_exit_code_too(told: Told, tmp_path: Path) -> None:
    textfile = tmp_path / "small.prom"
    with pytest.raises(Refused):
        call("run", told.world.spec_path, "--again", "--scheduler", "tcp://192.0.2.1:8786", "--metrics-textfile", textfile)
    assert 'batchscore_run_exit_code{spec="small"} 2.0' in textfile.read_text()
    assert 'batchscore_run_active{spec="small"} 0.0' in textfile.read_text()


@pytest.mark.parametrize(("library", "option"), [("ecs_logging", "--log=-"), ("prometheus_client", "--metrics=127.0.0.1:9")])
def test_a_missing_extra_gives_the_line_that_installs_it(
    told: Told, library: str, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(Refused, match=r"pip install 'batchscore\[(logs|metrics)\]'"):
        call("run", told.world.spec_path, "--inline", option)


def test_metrics_beyond_this_host_are_refused_before_the_run(told: Told) -> None:
    with pytest.raises(Refused, match="metrics_open"):
        call("run", told.world.spec_path, "--inline", "--metrics", "0.0.0.0:9108")
