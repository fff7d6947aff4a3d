"""doctor: each check says what it found, and what is wrong says its fix."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from batchscore.errors import Refused
from batchscore.operations import doctor
from batchscore.operations.doctor import CHECKS, CheckFound, Diagnosis, Patient, diagnose
from batchscore.operations.doctor.finding import Remark
from tests.small_world import SmallWorld, make_small_world


@pytest.fixture
def world(tmp_path: Path) -> SmallWorld:
    return make_small_world(tmp_path, n_accounts=50)


def found(diagnosis: Diagnosis, check: str) -> CheckFound:
    return next(finding for finding in diagnosis.findings if finding.check == check)


def levels(diagnosis: Diagnosis) -> set[str]:
    return {finding.level for finding in diagnosis.findings}


def test_there_are_at_least_fifteen_checks_without_a_cluster(world: SmallWorld) -> None:
    diagnosis = diagnose(Patient(spec=world.spec(), store=world.store))
    assert len(diagnosis.findings) >= 15
    assert "fail" not in levels(diagnosis)
    assert diagnosis.healthy


def test_what_does_not_apply_is_left_out() -> None:
    checks = {finding.check for finding in diagnose(Patient()).findings}
    assert not checks & {"plan", "store folder", "cluster"}
    assert checks <= set(CHECKS)


def test_nothing_is_left_behind(world: SmallWorld) -> None:
    before = sorted(world.folder.rglob("*"))
    diagnose(Patient(spec=world.spec(), store=world.store))
    assert sorted(world.folder.rglob("*")) == before


def test_a_missing_secret_fails_with_the_variable_to_set(world: SmallWorld) -> None:
    spec = world.spec(sources="{accounts: {sql: {url: nowhere, table: accounts}}, mails: {parquet: {path: mails}}}")
    finding = found(diagnose(Patient(spec=spec)), "secrets")
    assert finding.level == "fail"
    assert "BATCHSCORE_URL_NOWHERE" in finding.found + finding.remedy


def test_an_input_that_is_not_there_fails_by_its_name(world: SmallWorld) -> None:
    spec = world.spec()
    shutil.rmtree(world.folder / "mails")
    diagnosis = diagnose(Patient(spec=spec))
    assert not diagnosis.healthy
    assert "mails" in found(diagnosis, "inputs").found
    assert found(diagnosis, "plan").level == "fail"


def test_a_bundle_that_was_changed_fails(world: SmallWorld) -> None:
    spec = world.spec()
    with (world.folder / "bundle" / "golden.parquet").open("ab") as stream:
        stream.write(b"x")
    finding = found(diagnose(Patient(spec=spec)), "golden rows")
    assert (finding.level, "BS-302" in finding.found) == ("fail", True)


def test_a_spec_with_mistakes_fails_with_each_and_its_line(world: SmallWorld) -> None:
    text = world.spec_path.read_text()
    world.spec_path.write_text(
        text.replace("threshold: 0.2", "threshold: 2").replace("partition_rows: 50", "partition_rows: none")
    )
    finding = found(diagnose(Patient(spec_path=world.spec_path)), "spec")
    assert finding.level == "fail"
    assert "spec.yaml:6: policy.threshold" in finding.found
    assert "spec.yaml:9: partition_rows" in finding.found


def test_a_feature_set_with_mistakes_fails_with_its_line(world: SmallWorld) -> None:
    features = world.folder / "features.yaml"
    features.write_text(features.read_text().replace("window: 7d}", "window: 7}", 1))
    finding = found(diagnose(Patient(spec_path=world.spec_path)), "spec")
    assert (finding.level, "features.yaml:8" in finding.found) == ("fail", True)


def test_a_missing_extra_is_a_warning_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchscore.operations.doctor.machine._version", lambda _name: "")
    diagnosis = diagnose(Patient())
    assert found(diagnosis, "extras").level == "warn"
    assert "llvmlite (extra fast)" in found(diagnosis, "extras").found
    assert found(diagnosis, "extras").remedy.startswith("pip install 'batchscore[")


def test_too_many_workers_are_a_warning_and_no_failure() -> None:
    diagnosis = diagnose(Patient(n_workers=10_000))
    assert found(diagnosis, "cores").level == "warn"
    assert found(diagnosis, "memory").level == "warn"
    assert diagnosis.healthy


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_store_that_cannot_be_written_fails(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert found(diagnose(Patient(store=tmp_path / "store")), "store folder").level == "fail"


def test_a_store_of_newer_code_fails(world: SmallWorld) -> None:
    import sqlite3

    from batchscore.store import open_store

    open_store(world.store, "integer")
    with sqlite3.connect(world.store / "batchscore.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    assert "BS-414" in found(diagnose(Patient(store=world.store)), "store tables").found


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(_patient: Patient) -> Remark:
        raise Refused("run_taken", "somebody has it", remedy="wait")

    def breaks(_patient: Patient) -> Remark:
        raise ZeroDivisionError

    monkeypatch.setattr(doctor, "CHECKS", {"refuses": refuses, "breaks": breaks})


@pytest.mark.usefixtures("broken")
def test_a_check_that_raises_is_a_finding_and_hides_no_other() -> None:
    refuses, breaks = diagnose(Patient()).findings
    assert (refuses.level, refuses.remedy) == ("fail", "wait")
    assert (breaks.level, "ZeroDivisionError" in breaks.found) == ("fail", True)
