"""A day of input missing, or rows far from the usual: the run is held before it scores, exit 4, until a person approves."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import batchscore.attempt
from batchscore.cli.main import main
from batchscore.errors import HELD, Held, Refused
from batchscore.hold import HoldRow
from batchscore.plan import Stage
from batchscore.planner import make_plan
from batchscore.store import open_reader
from tests.commands import call
from tests.conftest import MakeMySqlStore
from tests.dba import dba_engine
from tests.fake_attempts import Noted
from tests.run_digest import run_digest
from tests.small_world import SmallWorld, make_small_world

MISSING = datetime(2026, 1, 12, tzinfo=UTC)
GATE = "{mails: {factor: 3}}"


@pytest.fixture
def world(tmp_path: Path) -> SmallWorld:
    return make_small_world(tmp_path, n_accounts=60)


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> Noted:
    """Each attempt that is made."""
    made = Noted()
    monkeypatch.setattr(batchscore.attempt, "attempt", made)
    return made


def keep(world: SmallWorld, wanted: Callable[[pa.Table], pa.Array]) -> None:
    """Write the mails again, those that are ``wanted`` alone."""
    for path in sorted((world.folder / "mails").rglob("*.parquet")):
        mails = pq.read_table(path)
        pq.write_table(mails.filter(wanted(mails)), path)


def lose_a_day(world: SmallWorld) -> None:
    keep(world, lambda mails: pc.not_equal(pc.floor_temporal(mails["at"], unit="day"), pa.scalar(MISSING)))


def held_run(world: SmallWorld, *command: str | Path) -> str:
    with pytest.raises(Held, match="input_held") as error:
        call(*(command or ("run", world.spec_path)), "--inline")
    assert error.value.exit_code == HELD == 4
    return open_reader(world.store).runs()[0].run_id


def test_a_missing_day_holds_the_run_until_a_person_approves_it(world: SmallWorld, attempts: Noted) -> None:
    lose_a_day(world)
    world.spec(gate=GATE)
    run_id = held_run(world)
    assert set(attempts.stages) == {Stage.FREEZE, Stage.ROLLUP}
    assert open_reader(world.store).partitions(run_id, Stage.SCORE) == ()
    status = call("status", run_id, "--store", world.store).stdout
    assert "held for its input" in status
    assert re.search(r"mails +2026-01-12 +0 +\d+ … \d+ +no rows", status)
    assert f"next: batchscore approve {run_id} --by NAME" in status
    assert "no rows" in call("watch", run_id, "--store", world.store).stdout

    n_attempts = len(attempts.tried)
    with pytest.raises(Held, match=r"(?s)mails, 2026-01-12: no rows: 0, usual .*batchscore approve r-"):
        call("resume", run_id, "--store", world.store, "--inline")
    assert len(attempts.tried) == n_attempts, "what is held anew costs no work"

    said = call("approve", run_id, "--by", "Ada", "--reason", "the relay was down", "--store", world.store).stdout
    assert "approved by Ada: the relay was down" in said
    assert f"next: batchscore resume {run_id}" in call("status", run_id, "--store", world.store).stdout
    assert call("resume", run_id, "--store", world.store, "--inline").code == 0
    with pytest.raises(Refused, match="not_held"):
        call("approve", run_id, "--by", "Bob", "--store", world.store)
    page = world.folder / "page.html"
    call("report", run_id, "--store", world.store, "--html", page)
    assert "approved by Ada" in page.read_text()
    assert call("verify", run_id, "--store", world.store).code == 0
    for lie in ("approved_by = 'Eve'", "approved_because = 'all is well'", "findings = '[]'", "approved_at = NULL"):
        with dba_engine(world.store).begin() as connection:
            kept = connection.exec_driver_sql("SELECT approved_by, approved_because, findings, approved_at FROM holds").one()
            connection.exec_driver_sql(f"UPDATE holds SET {lie}")
        assert call("verify", run_id, "--store", world.store).code == HELD, lie
        with dba_engine(world.store).begin() as connection:
            put = "UPDATE holds SET approved_by = ?, approved_because = ?, findings = ?, approved_at = ?"
            connection.exec_driver_sql(put, tuple(kept))

    world.spec(store="ungated")
    call("run", world.spec_path, "--inline")
    ungated = world.folder / "ungated"
    assert run_digest(ungated, open_reader(ungated).runs()[0].run_id) == run_digest(world.store, run_id)


@pytest.mark.parametrize(("by", "reason"), [(" ", ""), ("A\nB", ""), ("x" * 256, ""), ("Ada", "x" * 2_001)])
def test_an_approval_needs_a_name(by: str, reason: str) -> None:
    with pytest.raises(click.UsageError):
        call("approve", "r-00000000-1", "--by", by, "--reason", reason)


def test_what_was_approved_is_not_held_again_by_the_next_sweep(world: SmallWorld) -> None:
    lose_a_day(world)
    world.spec(gate=GATE)
    run_id = held_run(world, "sweep", world.spec_path, "--as-of", "2026-01-14")
    said = call("approve", run_id, "--by", "Ada", "--store", world.store, "--json").stdout
    assert HoldRow.model_validate_json(said).approved_by == "Ada"
    assert call("sweep", world.spec_path, "--as-of", "2026-01-14", "--inline").code == 0
    later = call("sweep", world.spec_path, "--as-of", "2026-01-15", "--inline")
    assert later.code == 0
    assert "1 approved" in later.output
    report = json.loads(call("report", open_reader(world.store).runs()[0].run_id, "--store", world.store, "--json").stdout)
    assert [warning.rpartition("; ")[2] for warning in report["warnings"]] == ["it was approved in an earlier run"]


def test_a_day_without_its_marker_waits_for_it(world: SmallWorld) -> None:
    (world.folder / "mails" / "day=2025-12-31").mkdir()  # late mails of that day stand in the folders of later ones
    for day in (world.folder / "mails").iterdir():
        (day / "_SUCCESS").touch()
    last = world.folder / "mails" / "day=2026-01-14" / "_SUCCESS"
    last.unlink()
    world.spec(gate="{mails: {marker: day=%Y-%m-%d/_SUCCESS}}")
    run_id = held_run(world)
    (held,) = open_reader(world.store).holds(run_id)
    assert [(f"{finding.day}", finding.what) for finding in held.findings] == [("2026-01-14", "not complete")]
    last.touch()
    assert call("run", world.spec_path, "--inline").code == 0
    (row,) = open_reader(world.store).runs()
    assert (row.run_id, row.state) == (run_id, "finished")


def test_a_lag_is_over_by_the_clock(world: SmallWorld) -> None:
    spec = world.spec(gate="{mails: {lag: 6h}}", as_of="2026-01-15")
    assert make_plan(spec, now=datetime(2026, 1, 15, 5, 59, tzinfo=UTC)).incomplete == {"mails": (date(2026, 1, 14),)}
    assert make_plan(spec, now=datetime(2026, 1, 15, 6, tzinfo=UTC)).incomplete == {}


def test_a_group_of_senders_that_stops_holds_the_run(
    world: SmallWorld, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted by a column that no feature reads; told as JSON, with exit code 4."""
    for path in sorted((world.folder / "mails").rglob("*.parquet")):
        mails = pq.read_table(path)
        names = ["a" if row % 4 or path.parent.name == "day=2026-01-14" else "b" for row in range(len(mails))]
        pq.write_table(mails.append_column("server", pa.array(names)), path)
    world.spec(gate="{mails: {factor: 3, by: server}}")
    monkeypatch.setattr("sys.argv", ["batchscore", "run", str(world.spec_path), "--inline", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    error = json.loads(capsys.readouterr().out)["error"]
    assert (ended.value.code, error["exit_code"], error["reason"]) == (4, 4, "input_held")
    assert [problem["where"] for problem in error["problems"]] == ["mails, server b, 2026-01-14"]
    status = json.loads(call("status", open_reader(world.store).runs()[0].run_id, "--store", world.store, "--json").stdout)
    assert status["run"]["state"] == "held"
    assert status["holds"][0]["findings"][0]["what"] in {"no rows", "fewer rows than usual"}


@pytest.mark.mysql
def test_a_run_is_held_and_approved_on_mysql(world: SmallWorld, mysql_store: MakeMySqlStore) -> None:
    mysql_store(world.store)
    lose_a_day(world)
    world.spec(gate=GATE, database="review")
    run_id = held_run(world)
    call("approve", run_id, "--by", "Zoë", "--store", world.store)
    assert call("resume", run_id, "--store", world.store, "--inline").code == 0
    assert open_reader(world.store).holds(run_id)[0].approved_by == "Zoë"


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ("{logins: {lag: 6h}}", "gate.logins: is no events table"),
        ("{mails: {by: server, factor: 2}}", "mails.server: column_missing"),
        ("{mails: {by: id, factor: 2}}", "gate.mails.by: is the account id"),
        ("{mails: {by: label}}", "add factor"),
        ("{mails: {marker: _SUCCESS}}", "names no file of each day"),
        ("{mails: {marker: ../%Y-%m-%d, factor: 2}}", "names no file of each day"),
        ("{mails: {marker: '%Y%m%d', lag: 1h}}", "keep one of the two"),
        ("{mails: {factor: 1}}", "gate.mails.factor"),
    ],
)
def test_a_gate_that_cannot_be_is_refused(world: SmallWorld, gate: str, said: str) -> None:
    with pytest.raises(Refused, match=re.escape(said)):
        make_plan(world.spec(gate=gate))


def test_as_ofs_to_come_and_tables_that_ended_are_told_in_any_case(world: SmallWorld) -> None:
    world.spec(as_of="[2026-01-15, 2031-02-01]")
    warned = ["as-of 2031-02-01T00:00:00+00:00 is not over yet", "mails: no event after 2026-01-14, as of 2031-02-01"]
    for command in ("check", "plan"):
        said = call(command, world.spec_path)
        assert all(f"warning: {warning}" in said.output for warning in warned)
    said = call("run", world.spec_path, "--inline")
    assert all(said.output.count(f"warning: {warning}") == 1 for warning in warned)
    run_id = open_reader(world.store).runs()[0].run_id
    report = json.loads(call("report", run_id, "--store", world.store, "--json").stdout)
    assert [warning.startswith(told) for warning, told in zip(report["warnings"], warned, strict=True)] == [True, True]
