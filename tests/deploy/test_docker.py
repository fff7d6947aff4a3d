"""The Dockerfile and the compose file: linted, valid, built without a Docker engine, and run as the user they name."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
import yaml

from batchscore.settings import PINNED_LIBRARIES, library_versions
from tests.deploy.compose import COMPOSE, read_compose
from tests.deploy.processes import free_ports, told_by
from tests.deploy.tools import DEPLOY, tool
from tests.deploy.units import ROOT

DOCKERFILE: Final = ROOT / "cluster/docker/Dockerfile"
BASE: Final = "localhost/debian-python:bookworm"  # stands in for python:3.11-slim-bookworm, which lies in a registry
OF_THE_HOST: Final = ("/etc/pip.conf", "/etc/ssl/certs", "/etc/resolv.conf")  # how a package index is reached from here
SERVICES: Final = read_compose()["services"]


def test_the_dockerfile_is_linted() -> None:
    done = told_by([tool("hadolint"), DOCKERFILE])
    assert (done.returncode, done.stdout) == (0, "")


def test_the_compose_file_is_valid() -> None:
    done = told_by([tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", COMPOSE])
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_published_and_only_drivers_may_write_the_review_database() -> None:
    assert read_compose()["networks"] == {"cluster": {"internal": True}}
    for name, service in SERVICES.items():
        assert "ports" not in service, name
        if name != "mysql":
            assert (service["read_only"], service["cap_drop"], service["user"]) == (True, ["ALL"], "10001:10001")
            assert ("url-review" in service["secrets"]) == (service["command"][0] == "batchscore")


def test_every_secret_and_volume_that_is_named_is_declared() -> None:
    read = read_compose()
    for service in SERVICES.values():
        assert set(service.get("secrets", ())) <= read["secrets"].keys()
        named = {volume.partition(":")[0] for volume in service.get("volumes", ())}
        assert {name for name in named if not name.startswith(".")} <= read["volumes"].keys()


def buildah(*arguments: str | Path) -> str:
    storage = DEPLOY / "containers"
    done = told_by(
        [tool("buildah"), "--root", storage / "root", "--runroot", storage / "run", "--storage-driver", "vfs", *arguments],
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
    return done.stdout.strip()


@contextmanager
def container(image: str) -> Iterator[str]:
    name = buildah("from", "--pull-never", image)
    try:
        yield name
    finally:
        buildah("rm", name)


@pytest.fixture(scope="module")
def image() -> str:
    """The Dockerfile's image, built on Debian's Python: the same release, from packages that can be had here."""
    base = DEPLOY / "base.tar"
    if not base.exists():
        pytest.skip("no base image: .deploy/base.tar is made by make test-deploy, as root on Debian")
    if BASE not in buildah("images", "--format", "{{.Name}}:{{.Tag}}").splitlines():
        with container("scratch") as empty:
            buildah("add", empty, base, "/")
            buildah("commit", empty, BASE)
    volumes = [word for path in OF_THE_HOST if Path(path).exists() for word in ("--volume", f"{path}:{path}:ro")]
    buildah(
        "bud", "--layers", "--isolation", "chroot", "--format", "docker", "--build-arg", f"BASE={BASE}", *volumes,
        "-f", DOCKERFILE, "-t", "localhost/batchscore:test", ROOT,
    )  # fmt: skip
    return "localhost/batchscore:test"


def run(name: str, *command: str) -> str:
    return buildah("run", "--isolation", "chroot", name, "--", *command)


@pytest.mark.timeout(1_800)
def test_the_image_runs_as_nobody_in_particular_with_the_versions_of_the_lock(image: str) -> None:
    with container(image) as name:
        assert run(name, "id", "-u") == "10001"
        assert run(name, "batchscore", "--version").startswith("batchscore, version")
        versions = "from batchscore.settings import library_versions; print(dict(library_versions()))"
        inside = yaml.safe_load(run(name, "python3", "-c", versions))
        mine = dict(library_versions())
        assert {library: inside[library] for library in PINNED_LIBRARIES} == {
            library: mine[library] for library in PINNED_LIBRARIES
        }
        packages = run(name, "pip", "list", "--format", "freeze").lower()
        assert "xgboost-cpu==" in packages
        assert "nvidia" not in packages
        for tooling in ("pytest", "ruff", "mypy", "hypothesis", "hatchling"):
            assert f"{tooling}==" not in packages
        doctor = run(name, "sh", "-c", "batchscore doctor --store /tmp/store || true")
        assert "0 failed" in doctor, doctor


@pytest.mark.timeout(1_800)
def test_the_health_check_tells_a_scheduler_that_lives_from_none(image: str) -> None:
    inspected = json.loads(buildah("inspect", "--type", "image", image))
    kind, *words = inspected["Docker"]["config"]["Healthcheck"]["Test"]
    assert kind == "CMD"
    assert "127.0.0.1:8787/" in words[-1]
    # Without an engine the container is on this host's network, where somebody's Dask may have 8787.
    address = f"127.0.0.1:{free_ports(1)[0]}"
    asked = shlex.join(word.replace("127.0.0.1:8787", address) for word in words) + " 2>/dev/null"
    with container(image) as name:
        assert run(name, "sh", "-c", f"{asked} || echo gone") == "gone"
        # without certificates, which the image's own configuration refuses
        alive = "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=False dask scheduler --host 127.0.0.1 --port 0 "
        alive += f"--dashboard-address {address} & "
        waited = f"for n in $(seq 60); do {asked} && echo healthy && break; sleep 0.5; done; "
        ended = f"kill $!; wait $!; {asked} || echo gone"
        assert run(name, "sh", "-c", alive + waited + ended).split() == ["healthy", "gone"]
