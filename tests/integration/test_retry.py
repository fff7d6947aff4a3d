"""Rows rejected and partitions quarantined: seen, exported, and redone after a fix; no flag is lost or doubled."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import batchscore.attempt
from batchscore.errors import QuarantineStop, Refused
from batchscore.operations.rejects import guarded
from batchscore.plan import Stage
from batchscore.store import open_reader
from tests.commands import Said, call
from tests.fake_attempts import Poisoned
from tests.small_world import SmallWorld, make_small_world


@contextmanager
def failing(*broken: tuple[Stage, int]) -> Iterator[list[tuple[Stage, int]]]:
    """Attempts at ``broken`` fail for good; the list holds what was attempted."""
    poisoned = Poisoned(*broken)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(batchscore.attempt, "attempt", poisoned)
        yield poisoned.tried


def run(world: SmallWorld) -> Said:
    return call("run", world.spec_path, "--inline")


def run_id_of(world: SmallWorld) -> str:
    return open_reader(world.store).runs()[0].run_id


def flagged(store: Path) -> dict[int | str, str]:
    """Open flags: account → run. A doubled one would be lost here, so their number is compared too."""
    rows = open_reader(store).queue(None, limit=10_000)
    found = {row.flag.account_id: row.flag.run_id for row in rows}
    assert len(found) == len(rows)
    return found


def test_a_retry_shows_first_and_then_redoes_exactly_what_was_quarantined(world: SmallWorld) -> None:
    with failing((Stage.SCORE, 1)):
        assert run(world).code == 3
    run_id = run_id_of(world)
    with failing() as attempted:
        shown = call("retry", run_id, "--quarantined", "--store", world.store, "--inline")
        assert "score  1 partition(s) done again" in shown.stdout
        assert "the next generation" in shown.stdout
        assert attempted == []
        assert run_id_of(world) == run_id
        assert call("retry", run_id, "--quarantined", "--apply", "--store", world.store, "--inline").code == 0
    assert [place for place in attempted if place[0] is not Stage.REASONS] == [(Stage.SCORE, 1)]
    assert run_id_of(world) == run_id.removesuffix("-1") + "-2"


def test_a_retry_freezes_accounts_of_a_live_table_anew_and_says_so(world: SmallWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    accounts = pq.read_table(world.folder / "accounts").to_pylist()
    rows = [(account["id"], account["created_at"].isoformat(), account["plan"]) for account in accounts]
    with closing(sqlite3.connect(world.folder / "crm.db")) as crm, crm:
        crm.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, created_at TEXT, plan INTEGER)")
        crm.executemany("INSERT INTO users VALUES (?, ?, ?)", rows)
    monkeypatch.setenv("BATCHSCORE_URL_CRM", f"sqlite:///{world.folder / 'crm.db'}")
    world.spec(sources="{accounts: {sql: {url: crm, table: users}}, mails: {parquet: {path: mails}}}")
    with failing((Stage.SCORE, 1)):
        assert run(world).code == 3
    asked = ("retry", run_id_of(world), "--quarantined", "--store", world.store, "--inline")
    stages = {stage["stage"]: stage for stage in json.loads(call(*asked, "--json").stdout)["stages"]}
    assert [stages["freeze"][name] for name in ("n_reused", "n_redone", "n_rows")] == [0, 1, world.n_accounts]
    assert stages["rollup"]["n_redone"] == stages["score"]["n_reused"] == 0
    with failing() as attempted:
        assert call(*asked, "--apply").code == 0
    assert {stage for stage, _ in attempted} >= {Stage.FREEZE, Stage.SCORE}
    assert Stage.ROLLUP not in {stage for stage, _ in attempted}


def test_the_retry_of_a_released_run_loses_and_doubles_no_flag(tmp_path: Path) -> None:
    whole, broken = make_small_world(tmp_path / "whole"), make_small_world(tmp_path / "broken")
    for made in (whole, broken):
        made.spec(policy="{queue: abuse, threshold: 0.0, budget: 100}")
    run(whole)
    undisturbed = set(flagged(whole.store))
    with failing((Stage.SCORE, 0)):
        run(broken)
    before = flagged(broken.store)
    call("retry", run_id_of(broken), "--quarantined", "--apply", "--store", broken.store, "--inline")
    after = flagged(broken.store)
    assert before.items() <= after.items(), "a flag that reviewers may be looking at stays with its run"
    assert undisturbed <= set(after), "what an undisturbed run flags is flagged"
    assert set(after) == undisturbed | set(before), "and nothing else is: the budget is not spent a second time"
    assert set(after) - set(before), "the world is such that the quarantined partition holds flags"


def test_the_retry_of_an_undone_run_says_that_its_flags_come_back(world: SmallWorld) -> None:
    with failing((Stage.SCORE, 0)):
        run(world)
    asked = ("retry", run_id_of(world), "--quarantined", "--store", world.store)
    assert "was undone" not in call(*asked).stdout
    call("undo", run_id_of(world), "--apply", "--why", "a test", "--store", world.store)
    assert "was undone: what was taken back is before the reviewers again" in call(*asked).stdout


def test_a_quarantined_rollup_is_redone_and_the_error_names_the_command(world: SmallWorld) -> None:
    with failing((Stage.ROLLUP, 0)), pytest.raises(QuarantineStop) as stopped:
        run(world)
    command = stopped.value.remedy.partition("batchscore ")[2].split()
    assert command[:3] == ["retry", run_id_of(world), "--quarantined"]
    assert "the run ended before it scored" in call(*command).stdout
    with failing() as attempted:
        assert call(*command, "--apply", "--inline").code == 0
    assert attempted[0] == (Stage.ROLLUP, 0)
    assert Stage.FREEZE not in {stage for stage, _ in attempted}
    assert flagged(world.store)


def test_a_mended_file_makes_a_new_plan_that_says_what_differs(world: SmallWorld) -> None:
    file = min((world.folder / "mails").rglob("*.parquet"))
    good, times = file.read_bytes(), file.stat()
    file.write_bytes(good[:4] + bytes(byte ^ 0xFF for byte in good[4:1_000]) + good[1_000:])
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(QuarantineStop):
        run(world)
    file.write_bytes(good)
    os.utime(file, (1, 1))
    shown = call("retry", run_id_of(world), "--quarantined", "--store", world.store)
    assert "changed since" in shown.stdout
    assert "source mails" in shown.stdout
    assert call("retry", run_id_of(world), "--quarantined", "--store", world.store, "--apply", "--inline").code == 0
    assert flagged(world.store)


def test_a_run_that_left_nothing_or_is_not_over_is_not_retried(world: SmallWorld) -> None:
    run(world)
    for kind in ("--quarantined", "--rejected"):
        with pytest.raises(Refused, match="nothing_to_retry"):
            call("retry", run_id_of(world), kind, "--store", world.store)


def test_an_older_generation_is_not_retried_past_a_newer(world: SmallWorld) -> None:
    with failing((Stage.SCORE, 1)):
        run(world)
    first = run_id_of(world)
    call("retry", first, "--quarantined", "--apply", "--store", world.store, "--inline")
    with pytest.raises(Refused, match="later run of the same plan"):
        call("retry", first, "--quarantined", "--store", world.store)


def spoil(world: SmallWorld, n: int) -> Path:
    """The first ``n`` mails of a day lose their account. The file, whose name a spreadsheet would take for a formula."""
    part = min((world.folder / "mails").rglob("*.parquet"))
    mails = pq.read_table(part)
    ids = pa.array([None] * n + mails["id"].to_pylist()[n:], pa.int64())
    spoilt = part.with_name("=part.parquet")
    pq.write_table(mails.set_column(0, "id", ids), spoilt)
    part.unlink()
    return spoilt


def test_rejects_are_shown_by_file_and_row_without_ids(world: SmallWorld) -> None:
    spoil(world, 3)
    run(world)
    said = json.loads(call("status", run_id_of(world), "--rejected", "--store", world.store, "--json").stdout)
    assert said["n"] == 3
    (count,) = said["counts"]
    assert (count["table"], count["code"], count["n"]) == ("mails", "null_id", 3)
    assert [row["row"] for row in said["first"]] == [0, 1, 2]
    shown = call("status", run_id_of(world), "--rejected", "--store", world.store).stdout
    assert "null_id: the account id is null" in shown
    assert "batchscore retry" in shown


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_rejects_are_exported_whole_and_never_over_a_file(world: SmallWorld, suffix: str) -> None:
    spoil(world, 3)
    run(world)
    out = world.folder / f"rejects.{suffix}"
    assert "3 reject(s)" in call("rejects", run_id_of(world), "--out", out, "--store", world.store).stdout
    rows = list(csv.DictReader(out.read_text().splitlines())) if suffix == "csv" else pq.read_table(out).to_pylist()
    assert [(int(row["row"]), row["code"]) for row in rows] == [(0, "null_id"), (1, "null_id"), (2, "null_id")]
    assert [path.name for path in world.folder.iterdir() if path.name.startswith(".rejects")] == []
    nowhere = world.folder / f"nowhere.{suffix}"
    nowhere.symlink_to(world.folder / "gone")
    for taken in (out, nowhere):
        with pytest.raises(Refused, match="file_exists"):
            call("rejects", run_id_of(world), "--out", taken, "--store", world.store)


def test_scores_that_were_rejected_are_counted_without_and_exported_with_their_account(world: SmallWorld) -> None:
    _make_infinite(world)
    run(world)
    shown = call("status", run_id_of(world), "--rejected", "--store", world.store).stdout
    assert "nonfinite_feature" in shown
    assert str(2**53 + 1) not in shown
    out = world.folder / "rejects.parquet"
    call("rejects", run_id_of(world), "--out", out, "--store", world.store)
    assert {(row["table"], row["account_id"]) for row in pq.read_table(out).to_pylist()} == {("scores", 2**53 + 1)}


def test_rejected_rows_are_retried_once_their_file_is_mended(world: SmallWorld) -> None:
    spoilt = spoil(world, 3)
    run(world)
    first = run_id_of(world)
    with pytest.raises(Refused, match="same rows would be rejected again"):
        call("retry", first, "--rejected", "--store", world.store)
    mails = pq.read_table(spoilt)
    pq.write_table(mails.slice(3), spoilt)
    assert "source mails" in call("retry", first, "--rejected", "--store", world.store).stdout
    before = flagged(world.store)
    assert call("retry", first, "--rejected", "--apply", "--store", world.store, "--inline").code == 0
    assert json.loads(call("status", run_id_of(world), "--rejected", "--store", world.store, "--json").stdout)["n"] == 0
    assert before.items() <= flagged(world.store).items()


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@sum", "\tx", "\rx", "'x"])
def test_a_cell_that_a_spreadsheet_could_compute_is_marked_as_text(text: str) -> None:
    assert guarded(text) == f"'{text}"
    assert guarded(-1) == "-1"
    assert guarded(None) == ""


def test_quarantine_is_shown_with_its_reason_and_the_next_command(world: SmallWorld) -> None:
    with failing((Stage.SCORE, 1)):
        run(world)
    shown = call("status", run_id_of(world), "--quarantined", "--store", world.store).stdout
    assert "score 1: BS-222 input_corrupt" in shown
    assert f"batchscore retry {run_id_of(world)} --quarantined" in shown
    said = json.loads(call("status", run_id_of(world), "--quarantined", "--store", world.store, "--json").stdout)
    assert [(row["stage"], row["number"]) for row in said["partitions"]] == [("score", 1)]


def _make_infinite(world: SmallWorld) -> None:
    """One account gets a plan that no float32 holds."""
    for file in (world.folder / "accounts").iterdir():
        accounts = pq.read_table(file)
        chosen = pc.equal(accounts["id"], 2**53 + 1)
        plan = pc.if_else(chosen, 1e300, pc.cast(accounts["plan"], pa.float64()))
        pq.write_table(accounts.set_column(2, "plan", plan), file)
