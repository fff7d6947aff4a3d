"""backfill and sweep: the same spec at other as-ofs; a watermark without gap or overlap; flags never doubled."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchscore.attempt
from batchscore.errors import Interrupted, QuarantineStop, Refused
from batchscore.plan import Stage, Task
from batchscore.receipt import Receipt
from batchscore.store import open_reader
from tests.commands import Said, call
from tests.fake_attempts import Noted, Poisoned
from tests.small_world import SmallWorld, make_small_world

attempt = batchscore.attempt.attempt


@pytest.fixture
def world(tmp_path: Path) -> SmallWorld:
    """A world whose spec says no as-of."""
    made = make_small_world(tmp_path)
    without = {key: value for key, value in made.text.items() if key not in {"as_of", "release"}}
    made.text.clear()
    made.text.update(without)
    made.spec()
    return made


def sweep(world: SmallWorld, day: str, *options: str) -> Said:
    return call("sweep", world.spec_path, "--as-of", day, "--inline", *options)


def open_flags(world: SmallWorld) -> list[int | str]:
    return [row.flag.account_id for row in open_reader(world.store).queue(None, limit=10_000)]


def touch_mails(world: SmallWorld) -> None:
    """Input that came late: the last day's mails a second time."""
    last = max((world.folder / "mails").iterdir()) / "part.parquet"
    pq.write_table(pq.read_table(last), last.with_name("late.parquet"))


def test_a_spec_without_as_of_passes_check_and_is_not_run(world: SmallWorld) -> None:
    assert "no mistakes" in call("check", world.spec_path).stdout
    with pytest.raises(Refused, match=r"(?s)as_of: is missing.*batchscore backfill SPEC"):
        call("run", world.spec_path, "--inline")


def test_a_backfill_scores_its_as_ofs_and_releases_nothing(world: SmallWorld) -> None:
    done = call("backfill", world.spec_path, "--from", "2026-01-08", "--to", "2026-01-14", "--every", "2d", "--inline")
    assert done.code == 0
    (row,) = open_reader(world.store).runs()
    assert [f"{as_of:%d}" for as_of in row.plan.spec.as_ofs()] == ["08", "10", "12", "14"]
    assert open_flags(world) == []


def test_a_backfill_of_days_that_are_not_over_is_refused_and_writes_nothing(world: SmallWorld) -> None:
    with pytest.raises(Refused, match=r"(?s)as_of_ahead.*--to"):
        call("backfill", world.spec_path, "--from", "2026-01-08", "--to", "9000-01-08", "--every", "99999d", "--inline")
    assert not world.store.exists()


def test_a_step_that_is_no_whole_grain_is_one_mistake(world: SmallWorld) -> None:
    with pytest.raises(click.UsageError, match="--every is no whole number of days"):
        call("backfill", world.spec_path, "--from", "2026-01-08", "--to", "2026-01-14", "--every", "7h", "--inline")
    assert not world.store.exists()


def test_a_run_says_what_it_set_aside_and_one_that_set_nothing_aside_does_not(world: SmallWorld) -> None:
    assert "set aside" not in sweep(world, "2026-01-14").stdout
    last = max((world.folder / "mails").iterdir()) / "part.parquet"
    mails = pq.read_table(last)
    ids = [None, *mails["id"].to_pylist()[1:]]
    pq.write_table(mails.set_column(mails.schema.get_field_index("id"), "id", pa.array(ids, mails["id"].type)), last)
    said = sweep(world, "2026-01-15").stdout
    assert "set aside: 1 rows rejected on reading, 0 events of unknown accounts → batchscore status r-" in said


def test_a_run_whose_accounts_are_before_the_reviewers_already_says_so(world: SmallWorld) -> None:
    sweep(world, "2026-01-14")
    assert "new flags; " in (said := sweep(world, "2026-01-14", "--reprocess", "all").output)
    assert "are before the reviewers already" in said


def test_an_undone_sweep_is_swept_again_only_when_asked_and_then_flags_the_same_accounts(world: SmallWorld) -> None:
    sweep(world, "2026-01-14")
    (run,) = open_reader(world.store).runs()
    flagged = open_flags(world)
    with pytest.raises(click.UsageError, match="--why"):
        call("undo", run.run_id, "--apply", "--store", world.store)
    shown = call("undo", run.run_id, "--store", world.store)
    assert f"{len(flagged)} flag(s) to withdraw" in shown.stdout
    assert open_flags(world) == flagged
    said = call("undo", run.run_id, "--apply", "--why", "wrong threshold", "--store", world.store)
    assert f"{len(flagged)} flag(s) withdrawn" in said.stdout
    assert open_flags(world) == []
    told = json.loads(call("report", run.run_id, "--json", "--store", world.store).stdout)
    assert (told["flags"]["n_released"], told["flags"]["n_withdrawn"]) == (0, len(flagged))
    assert any(name.startswith("audit trail, entry ") for name in told["digests"])
    touch_mails(world)
    late = sweep(world, "2026-01-14")
    assert "it was undone since" in late.output
    assert "watermark 2026-01-14" in late.stdout
    assert open_flags(world) == []
    sweep(world, "2026-01-14", "--reprocess", "all")
    assert open_flags(world) != []
    assert set(open_flags(world)) & set(flagged)


def test_a_backfill_releases_its_last_as_of_when_told_to(world: SmallWorld) -> None:
    call(
        "backfill",
        world.spec_path,
        "--from",
        "2026-01-08",
        "--to",
        "2026-01-15",
        "--every",
        "7d",
        "--release",
        "latest",
        "--inline",
    )
    assert {f"{row.flag.as_of:%d}" for row in open_reader(world.store).queue(None, limit=100)} == {"15"}


def test_a_second_sweep_of_an_as_of_reports_the_first_even_when_input_came_since(world: SmallWorld) -> None:
    assert sweep(world, "2026-01-14").code == 0
    flagged = open_flags(world)
    touch_mails(world)
    again = sweep(world, "2026-01-14")
    (row,) = open_reader(world.store).runs()
    assert f"swept already, by {row.run_id}" in again.output
    assert open_flags(world) == flagged
    assert flagged


def test_a_sweep_after_missed_days_says_so_and_moves_the_watermark(world: SmallWorld) -> None:
    sweep(world, "2026-01-10")
    late = sweep(world, "2026-01-14")
    assert "3 as-of(s) were missed (2026-01-11 … 2026-01-13)" in late.output
    assert "watermark 2026-01-14" in late.stdout
    assert "at least every 4d" in late.stdout
    assert len(open_flags(world)) == len(set(open_flags(world)))


def test_catching_up_simulates_the_missed_as_ofs_first(world: SmallWorld) -> None:
    sweep(world, "2026-01-12")
    sweep(world, "2026-01-15", "--catch-up")
    reader = open_reader(world.store)
    told = {tuple(f"{as_of:%d}" for as_of in row.plan.spec.as_ofs()): row.plan.spec.release for row in reader.runs()}
    assert told == {("12",): "latest", ("13", "14"): "none", ("15",): "latest"}
    assert {f"{row.flag.as_of:%d}" for row in reader.queue(None, limit=1_000)} <= {"12", "15"}


def test_a_sweep_never_goes_back(world: SmallWorld) -> None:
    sweep(world, "2026-01-14")
    with pytest.raises(Refused, match=r"(?s)as_of_behind.*batchscore backfill SPEC --from 2026-01-13"):
        sweep(world, "2026-01-13")
    sweep(world, "2026-01-15")
    with pytest.raises(Refused, match="as_of_behind"):
        sweep(world, "2026-01-14", "--reprocess", "all")


def test_a_day_that_is_not_over_is_not_swept_and_nothing_is_written(world: SmallWorld) -> None:
    with pytest.raises(Refused, match="as_of_ahead"):
        sweep(world, "2999-01-01")
    assert not world.store.exists()


def test_reprocessing_puts_no_account_and_no_more_than_the_budget_before_the_reviewers(world: SmallWorld) -> None:
    world.spec(policy="{queue: abuse, threshold: 0.0, budget: 5}")
    sweep(world, "2026-01-14")
    flagged = open_flags(world)
    assert len(flagged) == 5
    sweep(world, "2026-01-14", "--reprocess", "all")
    assert len(open_reader(world.store).runs()) == 2
    assert open_flags(world) == flagged


def test_reprocessing_what_failed_redoes_that_and_nothing_else(world: SmallWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(batchscore.attempt, "attempt", Poisoned((Stage.SCORE, 1)))
        first = sweep(world, "2026-01-14")
    assert first.code == 3
    assert "the stalest: 50 account(s) without a score" in first.stdout
    assert "--quarantined" in first.stdout
    done = Noted()
    monkeypatch.setattr(batchscore.attempt, "attempt", done)
    second = sweep(world, "2026-01-14", "--reprocess", "failed")
    assert second.code == 0
    assert done.numbers(Stage.SCORE) == [1]
    assert done.numbers(Stage.FREEZE) == done.numbers(Stage.ROLLUP) == []
    assert "the stalest score is as of 2026-01-14" in second.stdout
    done.tried.clear()
    assert sweep(world, "2026-01-14", "--reprocess", "failed").code == 0
    assert done.tried == []


def test_a_sweep_that_ended_at_a_quarantined_rollup_is_reprocessed(world: SmallWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(batchscore.attempt, "attempt", Poisoned(Stage.ROLLUP))
        with pytest.raises(QuarantineStop):
            sweep(world, "2026-01-14")
    (row,) = open_reader(world.store).runs()
    assert "retry" in call("status", row.run_id, "--store", world.store).stdout
    assert "watermark 2026-01-14" in sweep(world, "2026-01-14", "--reprocess", "failed").stdout


def test_an_interrupted_sweep_is_gone_on_with(world: SmallWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as stopped:
        stopped.setattr(batchscore.attempt, "attempt", stopping)
        with pytest.raises(Interrupted):
            sweep(world, "2026-01-14")
    assert open_reader(world.store).runs()[0].state == "interrupted"
    assert sweep(world, "2026-01-14").code == 0
    (row,) = open_reader(world.store).runs()
    assert (row.state, row.epoch) == ("finished", 2)


def test_an_interrupted_sweep_that_is_resumed_after_a_newer_one_releases_nothing(
    world: SmallWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(batchscore.attempt, "attempt", stopping)
        with pytest.raises(Interrupted) as interrupted:
            sweep(world, "2026-01-13")
    sweep(world, "2026-01-14")
    before = open_flags(world)
    run_id = interrupted.value.where.removeprefix("run ")
    with pytest.raises(Refused, match="as_of_behind"):
        call("resume", run_id, "--store", world.store, "--inline")
    assert open_flags(world) == before


def test_a_sweep_says_how_it_ended_as_json(world: SmallWorld) -> None:
    said = json.loads(sweep(world, "2026-01-14", "--json").stdout)
    assert said["watermark"] == "2026-01-14T00:00:00Z"
    assert said["staleness"]["n_left_out"] == 0
    assert said["state"] == "finished"


def stopping(task: Task) -> Receipt:
    """An attempt whose driver is asked to stop when scoring begins."""
    if task.partition.stage is Stage.SCORE:
        os.kill(os.getpid(), signal.SIGTERM)
    return attempt(task)


def test_the_retry_of_a_sweep_stays_a_sweep_and_spends_its_budget_once(
    world: SmallWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as failing:
        failing.setattr(batchscore.attempt, "attempt", Poisoned((Stage.SCORE, 1)))
        assert sweep(world, "2026-01-14").code == 3
    (first,) = open_reader(world.store).runs()
    before = open_flags(world)
    asked = ("retry", first.run_id, "--quarantined", "--apply", "--store", world.store, "--inline")
    assert call(*asked).code == 0
    again = max(open_reader(world.store).runs(), key=lambda row: row.generation)
    assert (again.generation, again.state) == (2, "finished")
    after = open_flags(world)
    assert len(after) == len(set(after)) <= 20
    assert set(before) <= set(after)
    assert sweep(world, "2026-01-14").code == 0
    assert len(open_reader(world.store).runs()) == 2, "the watermark knows of the retry"
    assert call("verify", first.run_id, "--store", world.store).code == 0
    assert call("verify", again.run_id, "--store", world.store).code == 0
