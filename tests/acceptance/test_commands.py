"""The real commands, as a person types them: what they print, what they leave, and the exit codes scripts rely on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore.store import open_reader
from tests.commands import COMMAND, batchscore
from tests.run_digest import run_digest
from tests.small_world import SmallWorld, make_small_world


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> SmallWorld:
    """A world whose run is done."""
    world = make_small_world(tmp_path_factory.mktemp("finished"))
    done = batchscore(world.folder, "run", "spec.yaml", "--inline")
    assert done.returncode == 0, done.stderr
    return world


def run_id_of(world: SmallWorld) -> str:
    return open_reader(world.store).runs()[0].run_id


def test_check_finds_no_mistake_and_every_mistake(tmp_path: Path) -> None:
    world = make_small_world(tmp_path)
    good = batchscore(tmp_path, "check", "spec.yaml")
    assert (good.returncode, "no mistakes" in good.stdout) == (0, True)
    world.spec_path.write_text(world.spec_path.read_text().replace("threshold: 0.2", "threshold: 2") + "surprise: 1\n")
    bad = batchscore(tmp_path, "check", "spec.yaml")
    assert bad.returncode == 2
    assert "BS-101" in bad.stderr
    assert "spec.yaml:6: policy.threshold" in bad.stderr
    assert "spec.yaml:10: surprise" in bad.stderr


def test_plan_prints_the_stages_and_writes_nothing(tmp_path: Path) -> None:
    make_small_world(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    planned = batchscore(tmp_path, "plan", "spec.yaml")
    assert planned.returncode == 0
    for stage in ("freeze", "rollup", "merge", "score", "decide", "reasons", "prove", "release"):
        assert stage in planned.stdout
    assert sorted(tmp_path.rglob("*")) == before
    assert json.loads(batchscore(tmp_path, "plan", "spec.yaml", "--json").stdout)["pinned"]["release"] == "latest"


def test_only_the_approved_plan_is_run(tmp_path: Path) -> None:
    make_small_world(tmp_path)
    refused = batchscore(tmp_path, "run", "spec.yaml", "--plan", "0123456789ab", "--inline")
    assert refused.returncode == 2
    assert "plan_changed" in refused.stderr
    assert not (tmp_path / "store").exists()
    approved = batchscore(tmp_path, "plan", "spec.yaml").stdout.rpartition("--plan ")[2].strip()
    assert batchscore(tmp_path, "run", "spec.yaml", "--plan", approved, "--inline").returncode == 0


def test_status_shows_runs_stages_and_the_proof(finished: SmallWorld) -> None:
    run_id = run_id_of(finished)
    assert run_id in batchscore(finished.folder, "status").stdout
    shown = batchscore(finished.folder, "status", run_id).stdout
    assert "proof: closes" in shown
    assert "score" in shown
    said = json.loads(batchscore(finished.folder, "status", run_id, "--json").stdout)
    assert said["run"]["state"] == "finished"
    assert [stage["stage"] for stage in said["stages"]] == ["freeze", "rollup", "merge", "score", "reasons"]


def test_the_queue_shows_the_best_flags_with_reasons_in_words(finished: SmallWorld) -> None:
    shown = batchscore(finished.folder, "queue", "-n", "3").stdout
    assert shown.count("account ") == 3
    assert "mails 7d is" in shown
    ranks = [row["flag"]["rank"] for row in json.loads(batchscore(finished.folder, "queue", "--json").stdout)["flags"]]
    assert ranks == sorted(ranks)


def test_watch_ends_with_the_run(finished: SmallWorld) -> None:
    assert "finished" in batchscore(finished.folder, "watch", run_id_of(finished)).stdout


def test_clean_shows_before_it_deletes(finished: SmallWorld) -> None:
    lost = finished.store / "score" / "lost.parquet"
    lost.write_bytes(b"left by an attempt that lost")
    os.utime(lost, (0, 0))
    assert "lost.parquet" in batchscore(finished.folder, "clean").stdout
    assert lost.exists()
    assert batchscore(finished.folder, "clean", "--apply").returncode == 0
    assert not lost.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["run", "absent.yaml"], 2, "file_missing"),
        (["status", "r-00000000-9"], 2, "run_unknown"),
        (["status", "../../x"], 2, "run_id_invalid"),
        (["status", "--store", "nowhere"], 2, "store_missing"),
        (["resume", "r-00000000-9"], 2, "run_unknown"),
        (["run", "spec.yaml", "--scheduler", "tcp://10.1.2.3:8786"], 2, "scheduler_insecure"),
        (["run", "spec.yaml", "--scheduler", "tcp://127.0.0.1:9"], 2, "scheduler_unreachable"),
        (["run", "spec.yaml", "--inline", "--workers", "2"], 2, "exclude each other"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_code(finished: SmallWorld, arguments: list[str], code: int, word: str) -> None:
    refused = batchscore(finished.folder, *arguments)
    assert refused.returncode == code
    assert word in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_missing_secret_says_which_variable_to_set(tmp_path: Path) -> None:
    world = make_small_world(tmp_path)
    world.spec(sources="{accounts: {sql: {url: crm, table: accounts}}, mails: {parquet: {path: mails}}}")
    refused = batchscore(tmp_path, "check", "spec.yaml")
    assert refused.returncode == 2
    assert "BATCHSCORE_URL_CRM" in refused.stderr


def test_a_secret_never_shows(tmp_path: Path) -> None:
    world = make_small_world(tmp_path)
    world.spec(sources="{accounts: {sql: {url: crm, table: accounts}}, mails: {parquet: {path: mails}}}")
    for url in ("sqlite:////nowhere/hunter2/x.db", "mysql+pymysql://u:hunter2@127.0.0.1:9/x", "hunter2"):
        refused = batchscore(tmp_path, "check", "spec.yaml", BATCHSCORE_URL_CRM=url)
        assert refused.returncode in {1, 2}
        assert "hunter2" not in refused.stdout + refused.stderr


def test_resume_refuses_a_changed_world_and_names_it(tmp_path: Path) -> None:
    world = make_small_world(tmp_path, n_accounts=2_000)
    world.spec(partition_rows="20")
    _stop_in_the_middle(world)
    file = next((tmp_path / "mails").rglob("*.parquet"))
    os.utime(file, (1, 1))
    refused = batchscore(tmp_path, "resume", run_id_of(world), "--inline")
    assert refused.returncode == 2
    assert "source mails" in refused.stderr


def test_sigterm_drains_and_the_printed_command_resumes_to_equal_bits(tmp_path: Path) -> None:
    world = make_small_world(tmp_path, n_accounts=2_000)
    world.spec(store="undisturbed", partition_rows="20")
    assert batchscore(tmp_path, "run", "spec.yaml", "--inline").returncode == 0
    (row,) = open_reader(tmp_path / "undisturbed").runs()
    undisturbed = run_digest(tmp_path / "undisturbed", row.run_id)
    world.spec(partition_rows="20")
    complaint = _stop_in_the_middle(world)
    command = complaint.rpartition("→ ")[2].split()
    assert command[:2] == ["batchscore", "resume"]
    resumed = batchscore(tmp_path, *command[1:], "--inline")
    assert resumed.returncode == 0, resumed.stderr
    assert run_digest(world.store, run_id_of(world)) == undisturbed


@pytest.mark.parametrize("where", ["inline", "local"])
def test_a_stop_does_not_wait_for_an_attempt_that_does_not_end(where: str, tmp_path: Path) -> None:
    """With the limits that drivers have (15 s and 20 s) it takes their supervisors' 30 s; here they are shorter."""
    world = make_small_world(tmp_path)
    world.spec(partition_rows="12")
    world.store.mkdir()
    (world.store / "hold").touch()
    script = Path(__file__).with_name("held_driver.py")
    environment = os.environ | {"PYTHONPATH": str(script.parents[2])}
    driver = subprocess.Popen(
        [sys.executable, script, world.spec_path, where, "2", "4"], env=environment, stderr=subprocess.PIPE, text=True
    )
    took, complaint = _stopped(driver, world, n_scored=2)
    print(f"stopped {where} within {took:.1f} s, of a drain of 2 s")
    assert took < 2 + 10
    assert f"batchscore resume {run_id_of(world)} --store" in complaint
    (row,) = open_reader(world.store).runs()
    assert (row.state, row.driver_gone) == ("interrupted", False)
    (world.store / "hold").unlink()
    assert batchscore(tmp_path, "resume", row.run_id, "--inline").returncode == 0


def _stop_in_the_middle(world: SmallWorld) -> str:
    """SIGTERM once some score partitions are committed; what the command said."""
    driver = subprocess.Popen(
        [COMMAND, "run", "spec.yaml", "--inline"], cwd=world.folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    took, complaint = _stopped(driver, world, n_scored=3)
    assert took < 30
    return complaint


def _stopped(driver: subprocess.Popen[str], world: SmallWorld, *, n_scored: int) -> tuple[float, str]:
    """SIGTERM once so many score partitions are committed: how many seconds it took to end with 5, and what was said."""
    deadline = time.monotonic() + 60
    while _n_scored(world) < n_scored:
        assert driver.poll() is None, f"the run ended before it could be stopped: {driver.communicate()[1]}"
        assert time.monotonic() < deadline, "no partition is scored"
        time.sleep(0.02)
    asked = time.monotonic()
    driver.send_signal(signal.SIGTERM)
    _, complaint = driver.communicate(timeout=60)
    assert driver.returncode == 5, complaint
    return time.monotonic() - asked, complaint


def _n_scored(world: SmallWorld) -> int:
    try:
        reader = open_reader(world.store)
    except Exception:  # noqa: BLE001 (the store is being made)
        return -1
    return sum(stage.n_committed for row in reader.runs() for stage in reader.stages(row.run_id) if stage.stage == "score")


def test_a_run_that_ended_on_its_input_leads_to_a_run_of_the_mended_one(tmp_path: Path) -> None:
    world = make_small_world(tmp_path)
    first = next(iter(sorted((tmp_path / "accounts").glob("*.parquet"))))
    whole = pq.read_table(first)
    pq.write_table(pa.concat_tables([whole, whole.slice(0, 1)]), first)
    assert batchscore(tmp_path, "run", "spec.yaml", "--inline").returncode == 2
    run_id = run_id_of(world)
    assert "then: batchscore run SPEC" in batchscore(tmp_path, "status", run_id).stdout
    assert "batchscore run SPEC" in batchscore(tmp_path, "retry", run_id, "--rejected").stderr
    pq.write_table(whole, first)
    assert batchscore(tmp_path, "run", "spec.yaml", "--inline").returncode == 0
