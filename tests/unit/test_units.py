"""Units that a team installs: each command and option in them exists, and what they say of stopping and failing is what we do."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import pytest
import yaml
from distributed.cli import dask_scheduler, dask_worker

from batchscore.cli.main import cli
from batchscore.errors import BUG, HELD, INTERRUPTED, QUARANTINED, REFUSED
from batchscore.observe.logs import configuration
from tests.commands import succeeded
from tests.deploy.units import ROOT, SERVICES, Command, Host, command_of, read_unit

JOBS = [unit for unit in SERVICES if unit.parent.parent.name == "jobs" and "failed" not in unit.name]
INSTANCES = {"batchscore-worker@": "01", "batchscore-release@": "2026-03-01", "batchscore-failed@": "batchscore-sweep.service"}
DASK = {"scheduler": dask_scheduler.main, "worker": dask_worker.main}


def host(root: Path) -> Host:
    for name in ("ca.pem", *(f"{role}.{end}" for role in ("scheduler", "worker", "client") for end in ("pem", "key"))):
        (root / "etc/batchscore/tls").mkdir(parents=True, exist_ok=True)
        (root / "etc/batchscore/tls" / name).touch()
    return Host(root=root, programs=Path(sys.executable).parent, ports={})


def command(unit: Path, root: Path) -> Command:
    return command_of(read_unit(unit, INSTANCES.get(unit.stem, "")), host(root))


def options_exist(words: list[str], of: click.Command) -> None:
    """Parse them as the program would; what is not there is an error."""
    of.make_context(words[0], words[1:], resilient_parsing=False)


def executed_by_shell(found: Command, root: Path) -> list[str]:
    """The command that the unit's shell comes to, told by a program in batchscore's place."""
    recorder = root / "batchscore"
    recorder.write_text('#!/bin/sh\nprintf "%s\\n" "$0" "$@"\n')
    recorder.chmod(0o755)
    line = found.words[2].replace(str(Path(sys.executable).parent), str(root))
    return succeeded(*found.words[:2], line, env=found.environment).splitlines()


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_every_command_and_option_in_a_unit_exists(unit: Path, tmp_path: Path) -> None:
    found = command(unit, tmp_path)
    program, *rest = executed_by_shell(found, tmp_path) if found.words[0] == "/bin/sh" else found.words
    match Path(program).name:
        case "dask":
            options_exist(rest, DASK[rest[0]])
        case "batchscore":
            asked = cli.get_command(click.Context(cli), rest[0])
            assert asked is not None
            options_exist(rest, asked)
        case _:
            assert program == "/usr/bin/systemd-cat"


@pytest.mark.parametrize("unit", JOBS, ids=lambda unit: unit.name)
def test_a_job_is_run_again_only_where_that_helps(unit: Path) -> None:
    read = read_unit(unit)
    assert read.one("SuccessExitStatus") == str(QUARANTINED)
    assert read.one("RestartPreventExitStatus").split() == [str(BUG), str(REFUSED), str(HELD)]
    assert read.one("Restart") == "on-failure", f"{INTERRUPTED} is resumable"
    assert read.one("OnFailure") == "batchscore-failed@%n.service"


@pytest.mark.parametrize("unit", JOBS, ids=lambda unit: unit.name)
def test_stopping_a_job_gives_the_driver_alone_the_time_to_drain(unit: Path) -> None:
    read = read_unit(unit)
    assert read.one("KillMode") == "mixed"
    assert int(read.one("TimeoutStopSec")) > 30, "a graceful stop takes up to 30 s (guarantee 15)"


def test_no_worker_and_no_scheduler_is_given_a_secret_that_may_write() -> None:
    for unit in SERVICES:
        secrets = [loaded for loaded in read_unit(unit).all("LoadCredential") if loaded.startswith("url-")]
        if unit not in JOBS:
            assert secrets in ([], ["url-crm"]), unit.name


def test_only_loopback_is_listened_on_until_somebody_says_otherwise(tmp_path: Path) -> None:
    for unit in SERVICES:
        for word in command(unit, tmp_path).words:
            assert "0.0.0.0" not in word  # noqa: S104 (it is looked for)


def test_dask_logs_as_the_driver_does() -> None:
    shared = yaml.safe_load((ROOT / "cluster/dask.yaml").read_text())
    assert shared["logging"] == configuration("-")


def test_a_driver_sees_whether_another_users_driver_lives() -> None:
    """`driver.is_gone` looks at /proc: where other users' processes are hidden, a living driver's run would be taken over."""
    for unit in JOBS:
        assert read_unit(unit).all("ProtectProc") == [], unit.name
