"""The demo, as the README tells a newcomer to run it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from batchscore.demo.mysql_server import server_programs
from batchscore.errors import Refused
from batchscore.plan import Stage
from batchscore.store import open_reader
from tests.commands import batchscore


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("demo")
    done = batchscore(folder, "demo", "--inline")
    assert done.returncode == 0, done.stderr
    return folder / "demo", done.stdout


def test_the_demo_ends_with_a_full_queue_and_a_proof_that_closes(told: tuple[Path, str]) -> None:
    folder, said = told
    assert "proof: closes" in said
    assert len(open_reader(folder / "store").queue("senders", limit=100)) == 25
    for line in ("base rate", "next, try:", "batchscore queue"):
        assert line in said


def test_what_the_readme_shows_of_the_demo_is_what_it_prints(told: tuple[Path, str]) -> None:
    readme = Path(__file__).parents[2].joinpath("README.md").read_text(encoding="utf-8")
    shown = readme.partition("plan 64dcaf333a18")[2].partition("```")[0]
    lines = [
        line for line in shown.splitlines() if line.startswith(("freeze", "rollup", "merge", "score", "proof", "flags", "`new`"))
    ]
    assert len(lines) == 7
    for line in lines:
        assert line in told[1]


def test_the_demo_beats_the_base_rate_and_says_so_beside_it(told: tuple[Path, str]) -> None:
    folder, _ = told
    truth = {row["account_id"]: row["is_abuse"] for row in pq.read_table(folder / "truth.parquet").to_pylist()}
    flags = open_reader(folder / "store").queue("senders", limit=100)
    precision = sum(truth[row.flag.account_id] for row in flags) / len(flags)
    assert precision > sum(truth.values()) / len(truth)


@pytest.mark.mysql
def test_the_demo_on_mysql_puts_the_same_accounts_before_the_reviewers_and_leaves_no_server(
    told: tuple[Path, str], tmp_path: Path
) -> None:
    try:
        server_programs()
    except Refused:
        pytest.skip("no MariaDB server program on this machine: make mariadb")

    def shown(said: str) -> str:
        return re.sub(r"r-[0-9a-f]{8}-\d", "", said.partition("the queue 'senders'")[2].partition("Read the precision")[0])

    first = batchscore(tmp_path, "demo", "--mysql", "--inline")
    assert first.returncode == 0, first.stderr
    assert shown(first.stdout) == shown(told[1]) != ""
    again = batchscore(tmp_path, "demo", "--mysql", "--inline", "--json")
    assert json.loads(again.stdout)["run"]["state"] == "finished"
    folder = tmp_path / "demo-mysql" / "mysql"
    assert not (folder / "pid").exists(), "an orderly shutdown removes it"
    assert {file.stat().st_mode & 0o77 for file in [folder, *folder.glob("*.password"), *folder.glob("*.url")]} == {0}
    passwords = [file.read_text() for file in folder.glob("*.password")]
    assert not any(password in first.stdout + first.stderr + again.stdout + again.stderr for password in passwords)


def test_without_a_server_program_the_demo_on_mysql_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match="apt-get install"):
        server_programs(besides="")


def test_the_truth_is_no_input_and_verdicts_are_no_features(told: tuple[Path, str]) -> None:
    folder, _ = told
    reader = open_reader(folder / "store")
    (row,) = reader.runs()
    assert not any("truth" in file.path for files in row.plan.inputs.values() for file in files)
    assert '"mid"' not in row.plan.feature_set.partition('"features"')[2]


def test_rows_that_cannot_be_used_are_rejected_and_counted(told: tuple[Path, str]) -> None:
    folder, _ = told
    reader = open_reader(folder / "store")
    (row,) = reader.runs()
    counts = [receipt.counts for receipt in reader.receipts(row.run_id, Stage.ROLLUP)]
    assert sum(count.get("rejected null_event_at", 0) for count in counts) == 2
    assert sum(count.get("rejected null_id", 0) for count in counts) == 3
    assert sum(count["events"] for count in counts) == 6_046 - 5


def test_a_second_call_finds_the_run_finished_and_shows_the_same(told: tuple[Path, str]) -> None:
    folder, said = told
    again = batchscore(folder.parent, "demo", "--inline")
    assert again.returncode == 0
    assert again.stdout.partition("proof:")[2] == said.partition("proof:")[2]


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "thesis.txt").write_text("ten years of work")
    assert batchscore(tmp_path, "demo", "--inline").returncode == 2
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["thesis.txt"]


def test_the_same_job_runs_on_a_simulated_world(tmp_path: Path) -> None:
    done = batchscore(tmp_path, "demo", "--accounts", "2000", "--days", "30", "--inline")
    assert done.returncode == 0, done.stderr
    assert "proof: closes" in done.stdout
    assert len(open_reader(tmp_path / "demo-2000" / "store").queue("accounts", limit=100)) == 25
