"""Kubernetes: what kustomize renders is valid, asks for no right, and its command lines are those of programs that are there."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from distributed.cli import dask_scheduler, dask_worker

from batchscore.cli.main import cli
from tests.deploy.processes import told_by
from tests.deploy.tools import tool, tools_site
from tests.deploy.units import ROOT

FOLDERS = ("cluster/kubernetes", "cluster/kubernetes/backfill")
VERSION = "1.30"  # podFailurePolicy, seccomp and timeZone as we use them are stable there


def rendered(folder: str) -> list[dict[str, Any]]:
    done = told_by([tool("kubectl"), "kustomize", folder], cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module", params=FOLDERS)
def documents(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return rendered(request.param)


def crds() -> dict[str, dict[str, Any]]:
    """The operator's resource definitions, as its own wheel ships them, by kind."""
    folder = tools_site("dask_kubernetes") / "operator/deployment/helm/dask-kubernetes-operator/crds"
    read = [yaml.safe_load(path.read_text()) for path in folder.glob("*.yaml")]
    return {crd["spec"]["names"]["kind"]: crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for crd in read}


def closed(schema: Any) -> Any:
    """The schema, with no place for a property it does not name: the API server would drop one without a word."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: closed(one) for name, one in schema.items()}
    if "properties" in made and not made.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in made:
        made["additionalProperties"] = False
    return made


def test_builtin_kinds_are_valid(tmp_path: Path) -> None:
    every = [document for folder in FOLDERS for document in rendered(folder)]
    ours = [document for document in every if not document["apiVersion"].startswith("kubernetes.dask.org")]
    assert ours
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(ours))
    done = told_by([tool("kubernetes-validate"), "--strict", "--kubernetes-version", VERSION, tmp_path / "all.yaml"])
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_operators_kinds_are_valid_by_its_own_definitions(documents: list[dict[str, Any]], tmp_path: Path) -> None:
    definitions = crds()
    found = [document for document in documents if document["apiVersion"] == "kubernetes.dask.org/v1"]
    assert found
    for number, document in enumerate(found):
        schema = closed(copy.deepcopy(definitions[document["kind"]]))
        schema["properties"] |= {name: {} for name in ("apiVersion", "kind", "metadata")}
        (tmp_path / f"{number}.schema.json").write_text(json.dumps(schema))
        (tmp_path / f"{number}.json").write_text(json.dumps(document))
        done = told_by(
            [tool("check-jsonschema"), "--schemafile", tmp_path / f"{number}.schema.json", tmp_path / f"{number}.json"]
        )
        assert done.returncode == 0, done.stdout + done.stderr


def pods(found: Any) -> Iterator[dict[str, Any]]:
    """Every pod specification within a document."""
    if isinstance(found, dict):
        if "containers" in found:
            yield found
        for one in found.values():
            yield from pods(one)
    elif isinstance(found, list):
        for one in found:
            yield from pods(one)


def test_no_pod_has_a_right_it_does_not_need(documents: list[dict[str, Any]]) -> None:
    for pod in pods(documents):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            may = container["securityContext"]
            assert (may["allowPrivilegeEscalation"], may["readOnlyRootFilesystem"]) == (False, True)
            assert may["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}


def test_only_drivers_are_given_the_database_that_may_be_written(documents: list[dict[str, Any]]) -> None:
    for pod in pods(documents):
        secrets = {volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
        command = pod["containers"][0]["args"][0]
        assert ("batchscore-databases" in secrets) == (command == "batchscore")
        if command == "dask":
            assert not [env for env in pod["containers"][0].get("env", ()) if "REVIEW" in env["name"]]


def test_every_command_line_is_one(documents: list[dict[str, Any]]) -> None:
    commands: dict[str, click.Command] = {"scheduler": dask_scheduler.main, "worker": dask_worker.main}
    lines = [container["args"] for pod in pods(documents) for container in pod["containers"]]
    assert len(lines) == 3
    for program, verb, *rest in lines:
        found = commands[verb] if program == "dask" else cli.get_command(click.Context(cli), verb)
        assert found is not None
        tls = {"--tls-ca-file", "--tls-cert", "--tls-key"}
        # a file that is here, in the place of one of the container's
        here = [str(ROOT / "LICENSE") if rest[place - 1] in tls else word for place, word in enumerate(rest)]
        found.make_context(verb, here)


def test_a_backfill_has_a_cluster_like_the_standing_one_and_speaks_to_its_own_scheduler() -> None:
    (job,) = rendered("cluster/kubernetes/backfill")
    assert job["kind"] == "DaskJob"
    (standing,) = [document for document in rendered("cluster/kubernetes") if document["kind"] == "DaskCluster"]
    mine = copy.deepcopy(job["spec"]["cluster"]["spec"])
    text = json.dumps(mine).replace("batchscore-backfill", "batchscore").replace('"replicas": 16', '"replicas": 4')
    assert json.loads(text) == standing["spec"]
    assert "tls://batchscore-scheduler:8786" not in json.dumps(job)
