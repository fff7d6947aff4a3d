"""The reviewer's verbs as commands; the queue out to a team's own tool, and its decisions back from files and tables."""

from __future__ import annotations

import csv
import json
import shlex
from datetime import UTC, datetime
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from batchscore.errors import Refused
from batchscore.flag import AccountId
from batchscore.keys import IdKind
from batchscore.store import open_reader, open_store
from tests.commands import Said, call
from tests.contract.store.at_the_desk import execute
from tests.contract.store.conftest import make_flag, make_plan


def make_store(folder: Path, *ids: AccountId, kind: IdKind = "integer", name: str = "first", score: float = 0.75) -> Path:
    store = open_store(folder, kind)
    run, _ = store.open(make_plan(folder, name=name), owner="me")
    store.release(run, iter([make_flag(ids[n], run_id=run.run_id, rank=n + 1, score=score) for n in range(len(ids))]))
    store.close(run, "finished")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store", 7, 8, 9)


def states(store: Path) -> dict[AccountId, str]:
    told = json.loads(call("queue", "list", "--json", "--store", store, *(f"--state={one}" for one in STATES)).stdout)
    return {row["flag"]["account_id"]: row["state"] for row in told["flags"]}


STATES = ("open", "claimed", "awaiting", "confirmed", "cleared", "inconclusive")


def test_a_reviewer_claims_looks_and_decides(store: Path) -> None:
    claimed = call("queue", "claim", "--by", "ann", "--store", store)
    assert "account 7" in claimed.stdout
    assert "claimed by ann until" in claimed.stdout
    assert "12 mails in 7 days" in claimed.stdout
    make_store(store, 7, name="second", score=0.9)
    with pytest.raises(Refused, match="evidence 2 came") as refusal:
        call("queue", "decide", "7", "cleared", "--saw", "1", "--by", "ann", "--store", store)
    assert refusal.value.reason == "flag_changed"
    looked = call("queue", "show", "7", "--store", store)
    assert "evidence 2: run" in looked.stdout
    assert "--saw 2 --run r-" in looked.stdout
    said = call("queue", "decide", "7", "cleared", "--saw", "2", "--by", "ann", "--why", "a newsletter", "--store", store)
    assert said.stdout == "account 7: cleared\n"
    looked = call("queue", "show", "7", "--store", store)
    assert "by ann on version 2: cleared: a newsletter" in looked.stdout
    assert "--saw" not in looked.stdout, "nothing is to be decided"
    assert states(store) == {7: "cleared", 8: "open", 9: "open"}


@pytest.mark.parametrize(
    "mistake",
    [
        ("queue", "claim", "7", "8", "--by", "ben"),
        ("queue", "release-claim", "8", "--by", "ann"),
        ("queue", "show", "99"),
        ("queue", "decide", "99", "cleared", "--saw", "1", "--by", "ann"),
        ("queue", "decide", "7", "cleared", "--saw", "5", "--by", "ann"),
        ("suppress", "remove", "account", "7", "--by", "ann", "--queue", "abuse"),
    ],
)
def test_the_command_that_a_refusal_tells_can_be_pasted(tmp_path: Path, mistake: tuple[str, ...]) -> None:
    store = make_store(tmp_path / "a store", 7, 8, 9)
    call("queue", "claim", "7", "--by", "ann", "--store", store)
    with pytest.raises(Refused) as refusal:
        call(*mistake, "--store", store)
    told = refusal.value.remedy.partition("batchscore ")[2].partition(";")[0]
    said = call(*shlex.split(told.replace("ACCOUNT", "7")))
    assert said.code == 0, said.output


def test_claims_are_given_back_and_old_flags_expire(store: Path) -> None:
    call("queue", "claim", "8", "9", "--by", "ann", "--store", store)
    assert "1 claim(s)" in call("queue", "release-claim", "8", "--by", "ann", "--store", store).stdout
    assert json.loads(call("queue", "release-claim", "--by", "ann", "--json", "--store", store).stdout) == {"accounts": [9]}
    assert "0 flag(s) would expire" in call("queue", "expire", "--older-than", "1h", "--by", "cron", "--store", store).stdout


def test_events_are_followed_with_a_cursor(store: Path) -> None:
    call("queue", "claim", "--by", "ann", "--store", store)
    first = json.loads(call("queue", "events", "-n", "3", "--json", "--store", store).stdout)
    assert [event["act"] for event in first["events"]] == ["opened"] * 3
    rest = json.loads(call("queue", "events", "--after", str(first["last"]), "--json", "--store", store).stdout)
    assert [(event["number"], event["act"], event["account_id"]) for event in rest["events"]] == [(4, "claimed", 7)]
    assert json.loads(call("queue", "events", "--after", "4", "--json", "--store", store).stdout) == {"events": [], "last": 4}


@pytest.mark.parametrize("arguments", [["show", "x"], ["claim", "1.0", "--by", "ann"], ["decide", "-1", "cleared", "--saw", "1"]])
def test_an_id_of_another_kind_is_a_mistake_in_the_command(store: Path, arguments: list[str]) -> None:
    with pytest.raises(click.UsageError):
        call("queue", *arguments, "--store", store)


def test_options_before_the_verb_are_not_passed_over(store: Path) -> None:
    with pytest.raises(click.UsageError, match="stand after its name"):
        call("queue", "--store", store, "claim", "--by", "ann")


def test_an_exported_queue_comes_back_with_decisions_whatever_the_ids_look_like(tmp_path: Path) -> None:
    ids = ["plain", "=1+1", "'=1", "-a@b.example", 'quo"te, comma', " space ", "\u00e9"]
    store = make_store(tmp_path / "store", *ids, kind="string")
    out = tmp_path / "queue.csv"
    assert f"{len(ids)} flag(s)" in call("queue", "export", "--out", out, "--store", store).stdout
    with out.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert not any(row["account_id"].startswith(("=", "-", "+", "@")) for row in rows), "a spreadsheet calculates nothing"
    filled = tmp_path / "filled.csv"
    with filled.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "disposition": "cleared" if number else ""} for number, row in enumerate(rows))
    checked = call("queue", "import", filled, "--by", "ann", "--seen", "--check", "--store", store)
    assert "6 decision(s) stand" in checked.stdout
    assert "6 of them new" in call("queue", "import", filled, "--by", "ann", "--seen", "--store", store).stdout
    assert "0 of them new" in call("queue", "import", filled, "--by", "ann", "--seen", "--store", store).stdout
    assert states(store) == {account_id: "cleared" if number else "open" for number, account_id in enumerate(ids)}


def test_every_mistake_of_a_file_is_told_with_its_row_and_nothing_is_taken(store: Path, tmp_path: Path) -> None:
    file = tmp_path / "decisions.csv"
    file.write_text(
        "account_id,disposition,evidence,decided_at\n"
        "7,cleared,1,\n"
        "8,guilty,1,\n"
        "7.0,cleared,1,\n"
        "9,cleared,first,\n"
        "9,cleared,1,2026-01-31 06:00\n"
        ",cleared,1,\n"
    )
    with pytest.raises(Refused, match="dispositions_invalid") as refusal:
        call("queue", "import", file, "--by", "ann", "--store", store)
    told = {problem.where: problem.what for problem in refusal.value.problems}
    assert set(told) == {f"row {number}" for number in range(2, 7)}
    assert "7.0" not in str(refusal.value)
    file.write_text("account_id,disposition\n7,cleared\n424242,cleared\n8,cleared\n8,confirmed\n")
    with pytest.raises(Refused, match="dispositions_invalid") as refusal:
        call("queue", "import", file, "--by", "ann", "--store", store)
    assert [(problem.where, problem.what.split(":")[0]) for problem in refusal.value.problems] == [
        ("row 2", "BS-601 flag_absent"),
        ("row 4", "BS-604 flag_decided"),
    ]
    assert "424242" not in str(refusal.value)
    assert set(states(store).values()) == {"open"}


def test_parquet_and_tables_of_a_teams_own_database_are_read_as_exactly(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decided_at = datetime.now(UTC).replace(microsecond=0)
    columns = {"account_id": [7], "disposition": ["confirmed"], "reviewer": ["ann"], "decided_at": [decided_at], "note": [1.5]}
    pq.write_table(pa.table(columns), tmp_path / "decisions.parquet")
    call("queue", "import", tmp_path / "decisions.parquet", "--store", store)
    database = tmp_path / "tickets.db"
    monkeypatch.setenv("BATCHSCORE_URL_TICKETS", f"sqlite:///{database}")
    with sa.create_engine(f"sqlite:///{database}").begin() as connection:
        connection.execute(
            sa.text('CREATE TABLE "closed tickets" (account_id BIGINT, disposition TEXT, reviewer TEXT, decided_at BIGINT)')
        )
        connection.execute(
            sa.text("INSERT INTO \"closed tickets\" VALUES (8, 'Cleared', 'bob', :at), (9, NULL, 'bob', 1)"),
            {"at": int(decided_at.timestamp()) * 1_000_000},
        )
    for n_new in (1, 0):
        said = call("queue", "import", "--url", "tickets", "--table", "closed tickets", "--json", "--store", store)
        assert json.loads(said.stdout) == {"n_read": 1, "n_new": n_new, "checked_only": False}
    assert states(store) == {7: "confirmed", 8: "cleared", 9: "open"}
    flags = [open_reader(store).account_flags("abuse", account_id)[0] for account_id in (7, 8)]
    assert [(flag.decided[0].by, flag.decided[0].decided_at) for flag in flags] == [("ann", decided_at), ("bob", decided_at)]
    with pytest.raises(Refused, match="secret_missing") as refusal:
        call("queue", "import", "--url", "mysql://reviewer:hunter2@db.example/queue", "--table", "other", "--store", store)
    assert "hunter2" not in f"{refusal.value}{refusal.value.__reduce__()}"
    with pytest.raises(Refused, match="table_missing"):
        call("queue", "import", "--url", "tickets", "--table", "other", "--store", store)


def test_what_is_suppressed_is_listed_with_who_answers_for_it(store: Path) -> None:
    base = ("--queue", "abuse", "--store", store)
    call("suppress", "add", "account", "7", "--until", "30d", "--owner", "trust", "--why", "a test", "--by", "ann", *base)
    call(
        "suppress",
        "add",
        "domain",
        "example.org",
        "--until",
        "2099-01-01",
        "--owner",
        "sales",
        "--why",
        "a mailing",
        "--by",
        "ann",
        *base,
    )
    said = call("suppress", "list", *base).stdout
    assert "example.org  until 2099-01-01 00:00 UTC  sales: a mailing" in said
    call("suppress", "remove", "account", "7", "--by", "bob", *base)
    assert "1 suppression(s)" in call("suppress", "list", *base).stdout
    assert "2 suppression(s)" in call("suppress", "list", "--all", *base).stdout
    call("suppress", "add", "account", "8", "--until", "30d", "--owner", "o", "--why", "w", "--by", "ann", *base)
    assert "1 suppression(s) ended" in call("suppress", "remove", "account", "008", "--by", "bob", *base).stdout, "it is 8"
    misspelt = call("suppress", "list", "--queue", "abus", "--store", store)
    assert "no run has released into queue abus; there is abuse" in misspelt.output
    for verb in (
        ["add", "domain", "a.example", "--until", "30d", "--owner", "o", "--why", "w"],
        ["remove", "domain", "a.example"],
    ):
        with pytest.raises(click.UsageError, match="1 to 255 characters"):
            call("suppress", *verb, "--by", " ", *base)
    for wrong in (["account", "x"], ["domain", ""]):
        with pytest.raises(click.UsageError):
            call("suppress", "add", *wrong, "--until", "30d", "--owner", "o", "--why", "w", "--by", "ann", *base)


def test_two_queues_are_told_apart(store: Path) -> None:
    opened = open_store(store, "integer")
    run, _ = opened.open(make_plan(store, name="other"), owner="me")
    opened.release(run, iter([make_flag(1, run_id=run.run_id, queue="signup")]))
    with pytest.raises(click.UsageError, match=r"which queue.*abuse, signup"):
        call("queue", "claim", "--by", "ann", "--store", store)
    said: Said = call("queue", "claim", "--by", "ann", "--queue", "signup", "--store", store)
    assert "account 1 " in said.stdout


def accounts(*asked: str, store: Path) -> list[AccountId]:
    told = json.loads(call("queue", "list", "--json", "--store", store, *asked).stdout)
    return [row["flag"]["account_id"] for row in told["flags"]]


def test_a_queue_is_listed_and_exported_by_what_is_asked_of_its_flags(store: Path, tmp_path: Path) -> None:
    call("queue", "claim", "8", "--by", "ann", "--for", "2d", "--store", store)
    make_store(store, 5, name="second")
    newest = open_reader(store).runs(limit=1)[0].run_id
    assert accounts("--claimed-by", "ann", store=store) == [8]
    assert accounts("--run", newest, store=store) == [5]
    assert set(accounts("--reason", "mails", store=store)) == {5, 7, 8, 9}
    assert accounts("--reason", "other", store=store) == accounts("--group", "none", store=store) == []
    call("queue", "export", "--out", tmp_path / "open.parquet", "--state", "open", "--reason", "mails", "--store", store)
    assert sorted(pq.read_table(tmp_path / "open.parquet")["account_id"].to_pylist()) == [5, 7, 9]
    claim = open_reader(store).account_flags("abuse", 8)[0].claim
    assert claim is not None
    assert (claim.until - claim.claimed_at).days == 2


def test_a_decision_is_corrected_only_on_purpose_and_both_stay_on_record(store: Path) -> None:
    run_id = open_reader(store).runs()[0].run_id
    base = ("--saw", "1", "--run", run_id, "--store", store)
    call("queue", "decide", "7", "cleared", "--by", "ann", *base)
    with pytest.raises(Refused, match="flag_decided"):
        call("queue", "decide", "7", "confirmed", "--by", "bob", *base)
    assert call("queue", "decide", "7", "confirmed", "--by", "bob", "--correct", *base).stdout == "account 7: confirmed\n"
    shown = call("queue", "show", "7", "--store", store).stdout
    assert "by ann on version 1: cleared" in shown
    assert "by bob on version 1: confirmed" in shown
    with pytest.raises(Refused):
        call("queue", "decide", "8", "cleared", "--by", "ann", "--saw", "1", "--run", "r-00000000-1", "--store", store)
    assert states(store)[8] == "open"


def test_flags_expire_when_it_is_said_and_not_when_it_is_asked(store: Path) -> None:
    execute(store, "UPDATE flags SET opened_at = opened_at - 86400000000 WHERE account_id < 9")
    asked = ("queue", "expire", "--older-than", "2h", "--by", "cron", "--store", store)
    assert "2 flag(s) would expire" in call(*asked).stdout
    assert accounts(store=store) == [7, 8, 9]
    assert call(*asked, "--apply").stdout == "2 flag(s) expired\n"
    assert json.loads(call(*asked, "--apply", "--json").stdout) == {"queue": "abuse", "n": 0, "applied": True}
    assert accounts(store=store) == [9]
