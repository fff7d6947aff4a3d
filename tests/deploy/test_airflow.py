"""The DAGs by Airflow itself, in an environment of its own: they parse, run against the simulated world, and know exit codes."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from batchscore.store import open_reader
from tests.deploy.clusters import World, make_world
from tests.deploy.processes import told_by
from tests.deploy.tools import tool
from tests.deploy.units import ROOT

DAGS = ROOT / "jobs/airflow"


@dataclass(frozen=True, kw_only=True)
class Airflow:
    """An Airflow with a database of its own, and the world that its DAGs score."""

    home: Path
    world: World

    def environment(self, **more: str) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "BATCHSCORE"))}
        return ours | {
            "AIRFLOW_HOME": str(self.home), "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS), "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "BATCHSCORE": str(Path(sys.executable).with_name("batchscore")), "BATCHSCORE_JOBS": str(self.world.folder / "jobs"),
            "BATCHSCORE_OPTIONS": "--inline", "PYTHONPATH": str(DAGS), "PYTHONDONTWRITEBYTECODE": "1", **more,
        }  # fmt: skip

    def __call__(self, *arguments: str, **more: str) -> str:
        done = told_by([tool("airflow"), *arguments], env=self.environment(**more), cwd=self.home)
        said = done.stdout + done.stderr
        assert done.returncode == 0, said[-3_000:]
        return said


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    tool("airflow")
    made = Airflow(home=tmp_path_factory.mktemp("airflow"), world=make_world(tmp_path_factory.mktemp("world")))
    made("db", "migrate")
    yield made
    shutil.rmtree(made.home, ignore_errors=True)


def state(said: str) -> str:
    found = re.findall(r"DagRun Finished: .*?, state=(\w+)", said)
    assert found, said[-3_000:]
    return str(found[-1])


def test_the_nightly_sweep_takes_its_as_of_from_the_data_interval(airflow: Airflow) -> None:
    said = airflow("dags", "test", "batchscore_sweep", "2026-03-02")
    assert state(said) == "success"
    (row,) = open_reader(airflow.world.store).runs(limit=10)
    assert f"{row.plan.spec.as_ofs()[-1]:%Y-%m-%d}" == "2026-03-01"  # the interval that ended before 2 March, 00:00
    assert row.released_at is not None


def test_a_backfill_takes_its_week_and_a_release_its_day(airflow: Airflow) -> None:
    assert state(airflow("dags", "test", "batchscore_backfill", "2026-03-01")) == "success"
    (backfill, *_) = open_reader(airflow.world.store).runs(limit=10)
    days = [f"{as_of:%m-%d}" for as_of in backfill.plan.spec.as_ofs()]
    assert (days[0], days[-1], len(days)) == ("02-21", "02-28", 8)
    assert open_reader(airflow.world.store).queue(backfill.run_id, limit=1) == ()
    assert state(airflow("dags", "test", "batchscore_release", "2026-03-03")) == "success"
    (release, *_) = open_reader(airflow.world.store).runs(limit=10)
    assert f"{release.plan.spec.as_ofs()[-1]:%m-%d}" == "03-02"


@pytest.mark.parametrize(
    ("code", "raised"),
    [(0, ""), (1, "AirflowFailException"), (2, "AirflowFailException"), (3, "AirflowSkipException"),
     (4, "AirflowFailException"), (5, "AirflowException"), (137, "AirflowFailException")],
)  # fmt: skip
def test_only_an_interrupted_command_is_tried_again(airflow: Airflow, code: int, raised: str, tmp_path: Path) -> None:
    program = tmp_path / "batchscore"
    program.write_text(f"#!/bin/sh\nexit {code}\n")
    program.chmod(0o755)
    script = (
        "from batchscore_task import Batchscore\n"
        "task = Batchscore(task_id='t', words=[])\nassert task.retries == 3\n"
        "try:\n    task.execute({})\nexcept Exception as error:\n    print('raised', type(error).__name__, error)\n"
    )
    python = Path(tool("airflow")).with_name("python")
    done = told_by([python, "-c", script], env=airflow.environment(BATCHSCORE=str(program)))
    assert done.returncode == 0, done.stderr
    found = re.search(r"^raised (\w+)", done.stdout, re.MULTILINE)
    assert (found[1] if found else "") == raised
