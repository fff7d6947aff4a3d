"""--json on every command: one document on stdout, of the model that `batchscore schema` describes, also when it fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batchscore.cli.outputs import OUTPUTS, Failure
from batchscore.store import open_reader
from tests.commands import batchscore
from tests.small_world import SmallWorld, make_small_world


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> SmallWorld:
    world = make_small_world(tmp_path_factory.mktemp("finished"))
    done = batchscore(world.folder, "run", "spec.yaml", "--inline", "--json")
    assert done.returncode == 0, done.stderr
    OUTPUTS["run"].model_validate_json(done.stdout)
    return world


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("check", ["check", "spec.yaml"]),
        ("features build", ["features", "build", "spec.yaml", "--as-of", "2026-01-15", "--out", "frame.parquet"]),
        ("plan", ["plan", "spec.yaml"]),
        ("resume", ["resume", "RUN", "--inline"]),
        ("status", ["status"]),
        ("status RUN", ["status", "RUN"]),
        ("undo", ["undo", "RUN"]),
        ("verify", ["verify", "RUN"]),
        ("queue", ["queue"]),
        ("report", ["report", "RUN"]),
        ("report diff", ["report", "diff", "RUN", "RUN"]),
        ("clean", ["clean"]),
        ("doctor", ["doctor", "--spec", "spec.yaml"]),
        ("help", ["help", "BS-101"]),
        ("completion", ["completion", "bash"]),
        ("demo", ["demo", "--accounts", "300", "--days", "20", "--inline"]),
    ],
)
def test_output_is_of_its_model(finished: SmallWorld, name: str, arguments: list[str]) -> None:
    run_id = open_reader(finished.store).runs()[0].run_id
    done = batchscore(finished.folder, *(run_id if word == "RUN" else word for word in arguments), "--json")
    assert done.returncode == 0, done.stderr
    OUTPUTS[name].model_validate_json(done.stdout)


def test_watch_prints_a_document_a_line(finished: SmallWorld) -> None:
    run_id = open_reader(finished.store).runs()[0].run_id
    (line,) = batchscore(finished.folder, "watch", run_id, "--json").stdout.splitlines()
    OUTPUTS["watch"].model_validate_json(line)


@pytest.mark.parametrize(
    ("arguments", "exit_code", "code", "reason"),
    [
        (["check", "absent.yaml"], 2, "BS-102", "file_missing"),
        (["status", "r-00000000-9"], 2, "BS-104", "run_unknown"),
        (["status", "--store", "nowhere"], 2, "BS-107", "store_missing"),
        (["run", "spec.yaml", "--inline", "--workers", "2"], 2, "", ""),
        (["nonsense"], 2, "", ""),
    ],
)
def test_an_error_is_json_on_stdout_and_words_on_stderr(
    finished: SmallWorld, arguments: list[str], exit_code: int, code: str, reason: str
) -> None:
    done = batchscore(finished.folder, *arguments, "--json")
    error = Failure.model_validate_json(done.stdout).error
    assert (done.returncode, error.exit_code, error.code, error.reason) == (exit_code, exit_code, code, reason)
    assert error.what
    assert done.stderr.strip()


def test_a_failure_lists_every_mistake_with_its_place(tmp_path: Path) -> None:
    world = make_small_world(tmp_path, n_accounts=20)
    world.spec_path.write_text(world.spec_path.read_text().replace("threshold: 0.2", "threshold: 2") + "surprise: 1\n")
    done = batchscore(tmp_path, "check", "spec.yaml", "--json")
    assert [problem["where"] for problem in json.loads(done.stdout)["error"]["problems"]] == ["spec.yaml:6", "spec.yaml:10"]


def test_output_has_no_colour_and_nothing_is_asked_without_a_terminal(finished: SmallWorld) -> None:
    run_id = open_reader(finished.store).runs()[0].run_id
    for arguments in (["status"], ["status", run_id], ["queue"], ["doctor"], ["--help"], ["plan", "spec.yaml"]):
        done = batchscore(finished.folder, *arguments)
        assert done.returncode == 0
        assert "\x1b" not in done.stdout + done.stderr


def test_run_ids_complete_from_the_store_and_a_missing_store_is_silent(finished: SmallWorld, tmp_path: Path) -> None:
    run_id = open_reader(finished.store).runs()[0].run_id
    asked = {"_BATCHSCORE_COMPLETE": "bash_complete", "COMP_WORDS": "batchscore status r-", "COMP_CWORD": "2"}
    assert run_id in batchscore(finished.folder, **asked).stdout
    elsewhere = asked | {"COMP_WORDS": f"batchscore status --store {finished.store} r-", "COMP_CWORD": "4"}
    assert run_id in batchscore(tmp_path, **elsewhere).stdout
    nothing = batchscore(tmp_path, **asked)
    assert (nothing.returncode, nothing.stdout.strip(), nothing.stderr) == (0, "", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_names_our_variable(tmp_path: Path, shell: str) -> None:
    assert "_BATCHSCORE_COMPLETE" in batchscore(tmp_path, "completion", shell).stdout


def test_a_hostile_name_shows_as_text(tmp_path: Path) -> None:
    name = "spec\x1b[31m.yaml"
    done = batchscore(tmp_path, "check", name)
    assert done.returncode == 2
    assert "\x1b" not in done.stdout + done.stderr
    assert "\\x1b" in done.stderr
