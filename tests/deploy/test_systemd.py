"""Units by systemd's own judgement: nothing to say about them, timers that come when they should, and little that they may do."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from batchscore.dispatch.dispatcher import DRAIN_S
from tests.deploy.compose import read_compose
from tests.deploy.processes import told_by
from tests.deploy.tools import tool
from tests.deploy.units import SERVICES, UNITS, read_unit

INSTANCES = {"batchscore-worker@": "01", "batchscore-release@": "2026-03-01", "batchscore-failed@": "batchscore-sweep.service"}
MAX_EXPOSURE = 2.0  # of 10; below it systemd says OK


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host's folders with our units, systemd's own, and something to execute where ours want to."""
    shutil.copytree("/lib/systemd/system", tmp_path / "lib/systemd/system", symlinks=True)
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    for unit in UNITS:
        shutil.copy(unit, tmp_path / "etc/systemd/system")
        for program in re.findall(r"(?<=ExecStart=)/\S+", unit.read_text()):
            place = tmp_path / program.removeprefix("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy("/bin/true", place)
    return tmp_path


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_has_nothing_to_say(unit: Path, root: Path) -> None:
    name = f"{unit.stem}{INSTANCES.get(unit.stem, '')}{unit.suffix}"
    done = told_by([tool("systemd-analyze"), "verify", f"--root={root}", "--man=no", name])
    assert (done.returncode, done.stderr) == (0, "")  # it ends with 0 on unknown keys, and says so on stderr


def test_an_unknown_key_would_be_found(root: Path) -> None:
    unit = root / "etc/systemd/system/batchscore-sweep.service"
    unit.write_text(unit.read_text().replace("MemoryMax=", "MemoryMaximum="))
    done = told_by([tool("systemd-analyze"), "verify", f"--root={root}", "--man=no", unit.name])
    assert "MemoryMaximum" in done.stderr


@pytest.mark.parametrize("unit", [unit for unit in SERVICES if "failed" not in unit.name], ids=lambda unit: unit.name)
def test_a_service_may_do_little(unit: Path) -> None:
    done = told_by([tool("systemd-analyze"), "security", "--offline=true", unit])
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert exposure is not None, done.stdout + done.stderr
    assert float(exposure[1]) <= MAX_EXPOSURE


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit.suffix == ".timer"], ids=lambda unit: unit.name)
def test_a_timer_comes_again(unit: Path) -> None:
    calendar = read_unit(unit).one("OnCalendar")
    done = told_by([tool("systemd-analyze"), "calendar", calendar])
    assert done.returncode == 0, done.stderr
    assert "Next elapse: " in done.stdout
    assert calendar.endswith(" UTC"), "as-ofs are UTC; a host's own zone has nights of 23 and 25 hours"


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_only_drivers_are_given_the_database_that_may_be_written(unit: Path) -> None:
    read = read_unit(unit)
    loaded = {credential.partition(":")[0] for credential in read.all("LoadCredential")}
    named = any("REVIEW" in line for line in read.all("Environment"))
    is_driver = "/batchscore/bin/batchscore" in read.one("ExecStart")
    assert ("url-review" in loaded) == named == is_driver


def test_a_job_that_fails_is_told_and_one_that_is_stopped_has_time_to_drain() -> None:
    jobs = [read_unit(unit) for unit in SERVICES if "/batchscore/bin/batchscore" in unit.read_text()]
    assert len(jobs) == 3
    for job in jobs:
        assert job.one("OnFailure") == "batchscore-failed@%n.service"
        assert job.one("KillMode") == "mixed"
        assert int(job.one("TimeoutStopSec")) >= 2 * DRAIN_S
    for name, service in read_compose()["services"].items():
        if service.get("profiles") == ["job"]:
            assert int(service["stop_grace_period"].removesuffix("s")) >= 2 * DRAIN_S, name
