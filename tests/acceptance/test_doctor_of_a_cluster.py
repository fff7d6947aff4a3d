"""doctor looks at real clusters: what is right is said, and what a run would fail of is found before it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client

from batchscore.operations.doctor.finding import CheckFound, Diagnosis
from tests.acceptance.real_cluster import RealCluster, apart
from tests.commands import batchscore

N_WORKERS = 2


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and one that is not shared."""
    folder = tmp_path_factory.mktemp("doctor")
    (folder / "store").mkdir()
    (folder / "unshared").mkdir()
    return folder


@pytest.fixture(scope="module")
def cluster(place: Path) -> Iterator[RealCluster]:
    unshared = place / "unshared"
    if subprocess.run([*apart(unshared), "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets no user mount a folder of its own (unshare --user)")
    with RealCluster(place, N_WORKERS, unseen=unshared) as started:
        with Client(started.address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(N_WORKERS, timeout=60)
        yield started


def examined(folder: Path, *arguments: str) -> tuple[int, dict[str, CheckFound]]:
    done = batchscore(folder, "doctor", *arguments, "--json")
    return done.returncode, {finding.check: finding for finding in Diagnosis.model_validate_json(done.stdout).findings}


def test_a_cluster_that_shares_the_store_is_healthy(place: Path, cluster: RealCluster) -> None:
    code, findings = examined(place, "--scheduler", cluster.address)
    assert code == 0
    assert findings["cluster"].found == "2 worker(s), versions equal to this driver's"
    assert findings["shared folder"].found == "what 2 worker(s) wrote was read here"
    assert list((place / "store").iterdir()) == []


def test_a_worker_that_does_not_see_the_stores_folder_is_found(place: Path, cluster: RealCluster) -> None:
    code, findings = examined(place, "--scheduler", cluster.address, "--store", "unshared")
    finding = findings["shared folder"]
    assert (code, finding.level) == (2, "fail")
    assert finding.found.startswith("1 of 2 worker(s) write where this driver does not read: tcp://127.0.0.1:")
    assert "mount one shared folder" in finding.remedy
    assert list((place / "unshared").iterdir()) == []


def test_a_scheduler_that_does_not_answer_is_found(place: Path) -> None:
    code, findings = examined(place, "--scheduler", "tcp://127.0.0.1:9")
    assert code == 2
    assert "BS-501" in findings["cluster"].found
    assert "dask scheduler" in findings["cluster"].remedy


def test_a_scheduler_on_another_host_without_tls_is_found_and_not_called(place: Path) -> None:
    code, findings = examined(place, "--scheduler", "tcp://10.1.2.3:8786")
    assert code == 2
    assert "BS-502" in findings["cluster"].found


def test_a_spec_with_mistakes_is_a_finding_among_the_others(place: Path) -> None:
    (place / "spec.yaml").write_text("name: x\nsurprise: 1\n")
    code, findings = examined(place, "--spec", "spec.yaml")
    assert (code, findings["spec"].level) == (2, "fail")
    assert "spec.yaml:2: surprise" in findings["spec"].found
    assert findings["libraries"].level == "ok"
