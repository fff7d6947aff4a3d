"""Whole runs under a policy: groups from the accounts, memory from the queue, what is withheld, and nothing scored again."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

import batchscore.attempt
from batchscore.errors import Held, Refused
from batchscore.operations.verified import Verified
from batchscore.plan import Stage
from batchscore.store import open_reader
from tests.commands import call
from tests.dba import dba_engine
from tests.fake_attempts import Noted
from tests.small_world import SmallWorld, make_small_world

GROUPS = {"segment": "plan", "groups": "[network]", "as_of": "2026-01-15", "partition_rows": "40"}


@pytest.fixture
def world(tmp_path: Path) -> SmallWorld:
    world = make_small_world(tmp_path, n_accounts=120)
    for path in (world.folder / "accounts").glob("*.parquet"):
        accounts = pq.read_table(path)
        networks = [f"net{number % 5}" if number % 3 else None for number in range(len(accounts))]
        pq.write_table(accounts.append_column("network", pa.array(networks)), path)
    return world


def run(world: SmallWorld, policy: str, **more: str) -> str:
    world.spec(**(GROUPS | more), policy=policy)
    assert call("run", world.spec_path, "--inline").code == 0
    return open_reader(world.store).runs()[0].run_id


def decided(world: SmallWorld, run_id: str, standing: str = "flag") -> list[dict[str, Any]]:
    row = open_reader(world.store).run(run_id)
    assert row.decision is not None
    return [record for record in pq.read_table(row.decision.path).to_pylist() if record["standing"] == standing]


def test_tiers_campaigns_and_the_reserve_go_by_the_accounts_columns_and_score_nothing_again(
    world: SmallWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(world, "{queue: abuse, budget: 20, reserve: 10}")
    flags = decided(world, first)
    assert (len(flags), len(decided(world, first, "reserve"))) == (20, 10)
    assert {flag["segment"] for flag in flags} == {"0", "1", "2"}

    made = Noted()
    monkeypatch.setattr(batchscore.attempt, "attempt", made)
    policy = "{queue: other, budget: 20, tiers: [{by: plan, budget: 4, second_reviewer: true}], campaign: {by: network, cap: 3}}"
    second = run(world, policy)
    assert set(made.stages) == {Stage.REASONS}
    flags = decided(world, second)
    units = Counter(flag["segment"] for flag in flags if flag["group"] is None)
    assert all(n <= 4 for n in units.values())
    assert max(Counter(flag["group"] for flag in flags if flag["group"]).values()) > 1
    shown = {flag.flag.account_id: flag.flag for flag in open_reader(world.store).queue("other", limit=100)}
    assert all(shown[flag["account_id"]].group == (flag["group"] or "") for flag in flags)
    assert all(flag.second_reviewer for flag in shown.values())
    for run_id in (first, second):
        assert Verified.model_validate_json(call("verify", run_id, "--store", world.store, "--json").stdout).true


def test_who_stands_in_the_queue_is_withheld_and_makes_the_budget_less(world: SmallWorld) -> None:
    run(world, "{queue: abuse, budget: 8}")
    second = run(world, "{queue: abuse, budget: 20, less_open: true}", name="other")
    assert len(decided(world, second)) == 12
    withheld = decided(world, second, "withheld")
    assert {record["withheld"] for record in withheld} == {"open"}
    assert len(withheld) == 8
    assert Verified.model_validate_json(call("verify", second, "--store", world.store, "--json").stdout).true


def test_a_suppression_while_a_run_is_held_keeps_the_account_back_and_the_decision_stays_what_it_was(world: SmallWorld) -> None:
    world.spec(**GROUPS, policy="{queue: abuse, budget: 8, domain: network, guard: {most: 1}}")
    with pytest.raises(Held, match="release_held"):
        call("run", world.spec_path, "--inline")
    run_id = open_reader(world.store).runs()[0].run_id
    flags = {flag["account_id"]: flag for flag in decided(world, run_id)}
    network = next(flag["domain"] for flag in flags.values() if flag["domain"])
    alone = next(account_id for account_id, flag in flags.items() if flag["domain"] != network)
    kept = {alone} | {account_id for account_id, flag in flags.items() if flag["domain"] == network}
    why = ("--until", "30d", "--owner", "trust", "--why", "a mailing", "--by", "ann", "--queue", "abuse", "--store", world.store)
    for named in (("account", str(alone)), ("domain", network)):
        assert call("suppress", "add", *named, *why).code == 0
    assert call("approve", run_id, "--by", "ann", "--store", world.store).code == 0
    assert call("resume", run_id, "--inline", "--store", world.store).code == 0
    shown = {flag.flag.account_id for flag in open_reader(world.store).queue("abuse", limit=100)}
    assert shown == flags.keys() - kept
    assert Verified.model_validate_json(call("verify", run_id, "--store", world.store, "--json").stdout).true
    report = json.loads(call("report", run_id, "--store", world.store, "--json").stdout)["flags"]
    assert (report["n_suppressed"], report["n_released"], report["n_overtaken"]) == (len(kept), len(shown), 0)
    told = json.loads(call("release", run_id, "--withheld", "--store", world.store, "--json").stdout)
    assert {one["account_id"] for one in told["would"] if one["withheld"] == "suppressed_since"} == kept
    explained = call("explain", run_id, "--account", str(alone), "--store", world.store)
    assert explained.code == 0, explained.stdout


def test_a_later_run_adds_evidence_to_the_flags_that_stand_and_takes_no_place_for_it(world: SmallWorld) -> None:
    first = run(world, "{queue: abuse, budget: 60}", as_of="2026-01-08")
    accounts = [flag["account_id"] for flag in decided(world, first)]
    policy = "{queue: abuse, budget: 110, less_open: true, more_evidence: {score: 0.001, reasons: 100}}"
    second = run(world, policy)
    considered = {row["account_id"]: row for row in decided(world, second, "evidence")}
    assert considered.keys() <= set(accounts)
    assert len(decided(world, second)) == 50
    reader = open_reader(world.store)
    versions = {account: reader.account_flags("abuse", account)[-1] for account in accounts}
    was = {flag["account_id"]: flag["score"] for flag in decided(world, first)}
    moved = {account for account, row in considered.items() if abs(row["score"] - was[account]) >= 0.001}
    assert all(row["score"] == was[row["account_id"]] for row in decided(world, second, "withheld"))
    assert {account for account, flag in versions.items() if flag.version == 2} == moved
    assert len(moved) > 0
    assert all(versions[one].newest.flag.reasons and versions[one].flag.run_id == first for one in moved)
    report = json.loads(call("report", second, "--store", world.store, "--json").stdout)["flags"]
    assert (report["n_evidence"], report["n_selected"], report["n_explained"]) == (len(moved), 50, 50)
    assert f"{len(moved)} added to flags that stand" in call("release", second, "--store", world.store).stdout
    explained = call("explain", second, "--account", str(min(moved)), "--store", world.store)
    assert (explained.code, "this run may add to that flag" in explained.stdout) == (0, True)
    assert Verified.model_validate_json(call("verify", second, "--store", world.store, "--json").stdout).true
    third = run(world, policy, name="third")
    assert reader.released_as(third).keys() <= {"unmoved"}, "the same as-of says the same"
    back = run(world, policy, name="back", as_of="2026-01-07")
    assert decided(world, back, "evidence") == [], "what an older as-of says is no news"
    with dba_engine(world.store).begin() as connection:
        connection.execute(sa.text("DELETE FROM flags WHERE run_id = :run AND released_as = 'evidence'"), {"run": second})
    told = call("verify", second, "--store", world.store).stdout
    assert f"{len(moved)} flag(s) are gone" in told


def test_a_sample_is_among_the_flags_and_nothing_tells_it_apart(world: SmallWorld) -> None:
    run_id = run(world, "{queue: abuse, budget: 20, sample: 0.3}")
    flags = decided(world, run_id)
    drawn = [flag for flag in flags if flag["stratum"]]
    assert (len(flags), len(drawn)) == (20, 6)
    assert [flag["rank"] for flag in drawn] != list(range(15, 21))
    shown = {flag.flag.account_id: flag.flag for flag in open_reader(world.store).queue("abuse", limit=100)}
    assert {flag["account_id"] for flag in drawn} <= shown.keys()
    assert Verified.model_validate_json(call("verify", run_id, "--store", world.store, "--json").stdout).true


def test_a_model_swap_that_drops_a_domain_or_flags_forty_times_as_many_is_held(world: SmallWorld) -> None:
    """The threshold stands for the model here: what a swap would bring above it. The run goes on once a person approved it."""
    scores = sorted(flag["score"] for flag in decided(world, run(world, "{queue: other, threshold: 0.0}", name="probe")))
    guarded = "queue: abuse, domain: network, guard: {factor: 3, least: 3}"
    world.spec(**GROUPS, policy=f"{{threshold: {scores[-30]}, {guarded}}}", release="latest")
    first = call("sweep", world.spec_path, "--as-of", "2026-01-14", "--inline")
    assert first.code == 0
    assert "warning: the guard has no earlier run of the spec to compare with" in first.output
    assert decided(world, open_reader(world.store).runs()[0].run_id)

    world.spec(**GROUPS, policy=f"{{threshold: 0.0, tiers: [{{by: network, values: [net1], threshold: 1.0}}], {guarded}}}")
    with pytest.raises(Held, match="release_held") as held:
        call("sweep", world.spec_path, "--as-of", "2026-01-15", "--inline")
    told = str(held.value)
    assert "scores above the threshold: more than usual" in told
    assert "flags of domain net1: fewer than usual: 0" in told
    row = open_reader(world.store).runs()[0]
    assert (row.state, row.released_at) == ("held", None)
    status = call("status", row.run_id, "--store", world.store).stdout
    assert "held for its release" in status
    assert "more than usual" in status
    assert not [flag for flag in open_reader(world.store).queue("abuse", limit=1_000) if flag.flag.run_id == row.run_id]
    with pytest.raises(Held, match="release_held"):
        call("resume", row.run_id, "--store", world.store, "--inline")
    call("approve", row.run_id, "--by", "Ada", "--reason", "as intended", "--store", world.store)
    resumed = call("resume", row.run_id, "--store", world.store, "--inline")
    assert resumed.code == 0
    assert "no earlier run" not in resumed.output
    assert open_reader(world.store).run(row.run_id).released_at is not None


def say(world: SmallWorld, accounts: dict[Any, str], queue: str = "abuse") -> None:
    """Decide on flags, as another tool would tell."""
    path = world.folder / "decisions.csv"
    path.write_text("account_id,disposition\n" + "".join(f"{account},{said}\n" for account, said in accounts.items()))
    assert call("queue", "import", path, "--by", "Ada", "--queue", queue, "--store", world.store).code == 0


def test_quality_and_thresholds_come_from_decisions_and_the_sample(world: SmallWorld) -> None:
    run_id = run(world, "{queue: abuse, budget: 20, reserve: 5, sample: 0.5}")
    with pytest.raises(Refused, match="nothing_decided"):
        call("quality", run_id, "--store", world.store)
    flags = decided(world, run_id)
    say(world, {flag["account_id"]: "cleared" if flag["stratum"] else "confirmed" for flag in flags})
    shown = json.loads(call("quality", "small", "--store", world.store, "--json").stdout)
    every = shown["every"]
    assert (shown["runs"], every["n_flags"], every["n_decided"]) == ([run_id], 10, 10)
    assert (every["precision"]["value"], every["recall"]["value"], every["missed"]) == (1.0, 1.0, 0.0)
    assert every["recall"]["low"] < 0.5, "ten looked at of a hundred leave room for many"
    n_scored = every["strata"][0]["n"] + sum(stratum["n"] for stratum in every["strata"][1:])
    assert n_scored == sum(len(table) for table in _scores(world, run_id))
    assert {segment["of"] for segment in shown["segments"]} <= {"0", "1", "2"}
    assert "recall" in call("quality", run_id, "--store", world.store).stdout

    best = json.loads(call("threshold", run_id, "--precision", "0.01", "--store", world.store, "--json").stdout)["chosen"]
    assert best["recall"]["value"] == 1.0
    assert best["threshold"] == pytest.approx(min(flag["score"] for flag in flags if not flag["stratum"]))
    assert call("threshold", run_id, "--reviews", "0", "--store", world.store).code == 4


@pytest.mark.parametrize(("sample", "below"), [("", set()), (", sample: 0.5", {"reserve"})])
def test_what_went_of_a_reserve_is_flagged_and_no_more_below_the_line(world: SmallWorld, sample: str, below: set[str]) -> None:
    run_id = run(world, f"{{queue: abuse, budget: 8, reserve: 10, per_day: 4{sample}}}")
    n_flagged = sum(not flag["stratum"] for flag in decided(world, run_id))

    def strata() -> dict[str, int]:
        queued = open_reader(world.store).queue("abuse", limit=100)
        say(world, {row.flag.account_id: "confirmed" for row in queued})
        shown = json.loads(call("quality", run_id, "--store", world.store, "--json").stdout)
        assert ("nothing was drawn below the line" in " ".join(shown["notes"])) == (not sample)
        assert sample or not [note for note in shown["notes"] if "recall is unknown" in note]
        return {stratum["name"]: stratum["n"] for stratum in shown["every"]["strata"]}

    before = strata()
    assert before["flagged"] == n_flagged
    assert call("release", run_id, "--apply", "--store", world.store).code == 0
    after = strata()
    assert {name for name in after if name == "reserve"} == {name for name in before if name == "reserve"} == below
    assert after["flagged"] - before["flagged"] >= 4
    assert sum(after.values()) - sum(before.values()) == (0 if sample else 4), "whoever goes is taken from where it was"
    assert min(after.values()) > 0


def _scores(world: SmallWorld, run_id: str) -> list[pa.Table]:
    outputs = [output for receipt in open_reader(world.store).receipts(run_id, Stage.SCORE) for output in receipt.outputs]
    return [pq.read_table(world.store / output.path) for output in outputs if output.role == "scores"]


def test_what_people_decided_and_suppressed_is_kept_from_the_queue_and_told(world: SmallWorld) -> None:
    first = decided(world, run(world, "{queue: abuse, budget: 6}"))
    cleared, confirmed, *others = [flag["account_id"] for flag in first]
    say(world, {cleared: "cleared", confirmed: "confirmed", others[0]: "cleared"})
    named = ("--by", "Ada", "--owner", "Ada", "--why", "a known tester", "--until", "90d", "--queue", "abuse")
    assert call("suppress", "add", "account", str(others[0]), *named, "--store", world.store).code == 0
    policy = "{queue: abuse, budget: 6, again: {score: 0.5}, cool_down: {confirmed: 365d}}"
    second = run(world, policy, as_of="2026-01-14", name="other")
    why = {record["account_id"]: (record["withheld"], record["why"]) for record in decided(world, second, "withheld")}
    assert why[cleared][0] == "unmoved"
    assert why[confirmed][0] == "cool_down"
    assert why[others[0]][0] == "suppressed"
    assert why[others[0]][1].endswith("by Ada: a known tester")
    assert {why[account][0] for account in others[1:] if account in why} <= {"open"}
    assert not {flag["account_id"] for flag in decided(world, second)} & {cleared, confirmed, *others}
    told = json.loads(call("release", second, "--withheld", "--store", world.store, "--json").stdout)
    assert {one["account_id"]: (one["withheld"], one["why"]) for one in told["would"]} == why
    report = json.loads(call("report", second, "--store", world.store, "--json").stdout)
    assert report["flags"]["withheld"] == told["never_flagged"] == dict(Counter(kind for kind, _ in why.values()))
    assert Verified.model_validate_json(call("verify", second, "--store", world.store, "--json").stdout).true


def test_the_reserve_goes_by_rank_at_its_pace_and_an_undo_takes_it_back(world: SmallWorld) -> None:
    run_id = run(world, "{queue: abuse, budget: 5, reserve: 10, per_day: 3}")
    kept = decided(world, run_id, "reserve")
    assert [record["rank"] for record in kept] == list(range(6, 16))
    named = ("--by", "Ada", "--owner", "Ada", "--why", "a known tester", "--until", "90d", "--queue", "abuse")
    assert call("suppress", "add", "account", str(kept[1]["account_id"]), *named, "--store", world.store).code == 0

    def release(*more: str) -> Any:
        return json.loads(call("release", run_id, *more, "--store", world.store, "--json").stdout)

    shown = release()
    assert (shown["n_kept"], shown["n_gone"], shown["n_next"], shown["next_rank"]) == (10, 0, 3, 6)
    assert (shown["withheld"], shown["n_released"]) == ({"suppressed": 1}, 0)
    assert len(open_reader(world.store).queue("abuse", limit=100)) == 5
    assert release("--count", "1", "--apply")["n_released"] == 1
    assert release("--apply")["n_released"] == 2
    assert release("--apply")["n_released"] == 0, "its day is used up"
    shown_ranks = sorted(flag.flag.rank for flag in open_reader(world.store).queue("abuse", limit=100))
    assert shown_ranks == [1, 2, 3, 4, 5, 6, 8, 9]
    assert all(flag.flag.reasons for flag in open_reader(world.store).queue("abuse", limit=100))
    assert Verified.model_validate_json(call("verify", run_id, "--store", world.store, "--json").stdout).true
    assert "nothing may go now" in call("release", run_id, "--store", world.store).stdout
    call("undo", run_id, "--apply", "--why", "a test", "--store", world.store)
    assert open_reader(world.store).queue("abuse", limit=100) == ()
    with pytest.raises(Refused, match="nothing_to_release"):
        call("release", run_id, "--store", world.store)


def test_a_cleared_account_comes_again_when_its_counts_or_reasons_moved_and_says_so(world: SmallWorld) -> None:
    first = decided(world, run(world, "{queue: abuse, budget: 30}", as_of="2026-01-08"))
    say(world, {flag["account_id"]: "cleared" for flag in first})
    mails = pa.concat_tables([pq.read_table(path) for path in sorted((world.folder / "mails").rglob("*.parquet"))]).to_pylist()

    def mails_7d(account: int, day: int) -> int:
        until = datetime(2026, 1, day, tzinfo=UTC)
        span = until - timedelta(days=7)
        return sum(mail["id"] == account and span <= mail["at"] < until and mail["known"] < until for mail in mails)

    second = run(world, "{queue: abuse, budget: 60, again: {counts: {mails_7d: 2}, reasons: 3}}", name="other")
    rows = {row["account_id"]: row for standing in ("flag", "withheld") for row in decided(world, second, standing)}
    seen = [rows[flag["account_id"]] for flag in first if flag["account_id"] in rows]
    assert {row["standing"] for row in seen} == {"flag", "withheld"}
    for row in seen:
        rise = mails_7d(row["account_id"], 15) - mails_7d(row["account_id"], 8)
        assert (f"{rise} more mails_7d" in (row["since"] or "")) == (rise >= 2)
        assert row["standing"] == "flag" or (row["withheld"] == "unmoved" and rise < 2)
    shown = {flag.flag.account_id: flag.flag.since for flag in open_reader(world.store).queue("abuse", limit=200)}
    assert all(shown[row["account_id"]] == row["since"] for row in seen if row["standing"] == "flag")
    assert Verified.model_validate_json(call("verify", second, "--store", world.store, "--json").stdout).true
    report = json.loads(call("report", second, "--store", world.store, "--json").stdout)
    assert "reconsider" in [stage["stage"] for stage in report["stages"]]
    assert report["gaps"] == []
    assert "reconsider" in call("status", second, "--store", world.store).stdout
