"""Why an account was flagged, or was not: everything made again from the frozen input, to the bit, or said to differ."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

import batchscore
from batchscore.cli.main import cli
from batchscore.errors import HELD, BatchscoreError, Held, PartitionError, Refused
from batchscore.executors.inline import InlineExecutor
from batchscore.flag import AccountId, Flag
from batchscore.keys import IdKind
from batchscore.models.scorer import Scorer
from batchscore.operations.frozen_rows import row_digest
from batchscore.plan import Reference, Stage
from batchscore.report.explanation import Explanation
from batchscore.store import open_reader
from tests.commands import call
from tests.fake_attempts import Poisoned
from tests.small_world import SmallWorld, make_small_world
from tests.whole_runs import walk

LAST = datetime(2026, 1, 15, tzinfo=UTC)
FIRST = datetime(2026, 1, 8, tzinfo=UTC)


@pytest.fixture(scope="module", params=["integer", "string"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SmallWorld:
    """Three runs into one queue: one that flags, one that finds those flags open, and a simulated backfill."""
    kind: IdKind = request.param
    made = make_small_world(tmp_path_factory.mktemp(kind), n_accounts=200, kind=kind)
    batchscore.run(made.spec(name="after", policy="{queue: abuse, threshold: 0.1, budget: 25}", as_of="2026-01-14"), inline=True)
    batchscore.run(made.spec(name="simulated", release="none", policy="{queue: abuse, budget: 8}"), inline=True)
    batchscore.run(made.spec(), inline=True)
    return made


def run_of(world: SmallWorld, name: str) -> str:
    row = open_reader(world.store).newest_finished(name)
    assert row is not None
    return row.run_id


def explained(world: SmallWorld, name: str, account_id: AccountId, as_of: datetime | None = None) -> Explanation:
    return batchscore.explain(run_of(world, name), account_id, store=world.store, as_of=as_of)


def scores_at(world: SmallWorld, name: str, as_of: datetime) -> list[tuple[AccountId, float]]:
    """All scores of an as-of, best first."""
    reader = open_reader(world.store)
    paths = [
        world.store / out.path
        for receipt in reader.receipts(run_of(world, name), Stage.SCORE)
        for out in receipt.outputs
        if out.role == "scores"
    ]
    rows = pa.concat_tables(pq.read_table(path) for path in paths).to_pylist()
    return sorted(
        ((row["account_id"], row["score"]) for row in rows if row["as_of"] == as_of),
        key=lambda pair: (-pair[1], pair[0] if isinstance(pair[0], int) else pair[0].encode()),
    )


def told(*arguments: str | Path, stdin: str = "") -> Result:
    return CliRunner().invoke(cli, ["explain", *map(str, arguments)], input=stdin, standalone_mode=False, catch_exceptions=True)


def flags_of(world: SmallWorld, name: str) -> list[Flag]:
    return [row.flag for row in open_reader(world.store).queue("abuse", limit=100) if row.flag.run_id == run_of(world, name)]


def test_every_flag_is_made_again_to_the_bit(world: SmallWorld) -> None:
    flags = flags_of(world, "after")
    assert len(flags) > 10
    for flag in flags[::5]:
        found = explained(world, "after", flag.account_id)
        assert found.true, found.checks
        assert [check.name for check in found.checks] == [
            "rows", "outcome", "margin", "score", "contributions", "reasons", "decision", "flag",
        ]  # fmt: skip
        assert (found.score, found.margin, found.reasons) == (flag.score, flag.margin, flag.reasons)
        assert found.selection is not None
        assert (found.selection.because, found.selection.rank) == ("selected", flag.rank)
        assert found.base is not None
        gave = sum(feature.contribution or 0 for feature in found.features)
        assert gave + found.base == pytest.approx(found.margin, abs=1e-4)
        assert found.flag_state == "open"


def test_an_account_that_is_not_flagged_is_told_why(world: SmallWorld) -> None:
    scores = scores_at(world, "small", LAST)
    below = next(account for account, score in scores if score < 0.2)
    found = explained(world, "small", below, LAST)
    assert found.true
    assert found.selection is not None
    assert (found.selection.because, found.selection.rank) == ("below_threshold", None)
    were_open = {flag.account_id for flag in flags_of(world, "after")}
    better = [account for account, _ in scores[: [account for account, _ in scores].index(below)]]
    assert found.selection.place == len(set(better) - were_open) + 1, "who has a flag open takes no place"
    found = explained(world, "small", min(were_open, key=str), LAST)
    assert found.true
    assert found.selection is not None
    assert found.selection.because == "open_flag"
    assert found.selection.flag_open_since is not None


def test_beyond_the_budget_and_flagged_at_an_earlier_as_of(world: SmallWorld) -> None:
    taken = [account for account, _ in scores_at(world, "simulated", FIRST)[:8]]
    earlier = explained(world, "simulated", taken[0], LAST)
    assert earlier.true
    assert earlier.selection is not None
    assert earlier.selection.because in {"flagged_earlier", "open_flag"}
    ninth, score = scores_at(world, "simulated", FIRST)[8]
    beyond = explained(world, "simulated", ninth, FIRST)
    assert beyond.true
    assert beyond.selection is not None
    assert (beyond.selection.because, beyond.selection.place) == ("beyond_budget", 9)
    assert beyond.selection.last_score is not None
    assert beyond.selection.last_score >= score
    assert explained(world, "simulated", taken[0]).as_of == FIRST, "where it was selected, unless another is asked for"


def test_rows_are_those_of_the_account_and_their_digests_follow_the_values(world: SmallWorld) -> None:
    account, _ = scores_at(world, "small", LAST)[0]
    found = explained(world, "small", account, LAST)
    assert found.rows[0].table == "accounts"
    assert sum(row.n_events or 0 for row in found.rows if row.table == "mails") > 0
    for row in found.rows:
        held = pq.ParquetFile(world.store / row.file).read_row_group(row.row_group).slice(row.row, 1)
        assert held["account_id"].to_pylist() == [account]
        assert row_digest(held) == row.sha256
        backwards = held.select(held.column_names[::-1])
        assert row_digest(backwards) == row.sha256, "the order of columns is no value"
    counted = [row for row in found.rows if row.table == "mails" and row.counts]
    assert all(row.known_at is not None and row.known_at < LAST for row in counted)


def test_one_account_outside_one_unknown_and_an_as_of_that_is_none(world: SmallWorld) -> None:
    row = open_reader(world.store).run(run_of(world, "simulated"))
    accounts = pa.concat_tables(
        pq.read_table(world.store / out.path)
        for receipt in open_reader(world.store).receipts(row.run_id, Stage.FREEZE)
        for out in receipt.outputs
        if out.role == "snapshot"
    ).to_pylist()
    young = [one["account_id"] for one in accounts if one["created_at"] is not None and one["created_at"] >= FIRST]
    for account in young[:1]:
        found = explained(world, "simulated", account, FIRST)
        assert (found.outcome, found.true, found.score) == ("outside", True, None)
    for nobody in (12345, "nobody", 2**70, -1, True):
        with pytest.raises(Refused, match="no such account") as refused:
            batchscore.explain(row.run_id, nobody, store=world.store)
        assert str(nobody) not in str(refused.value) or nobody in {True, -1}
    with pytest.raises(Refused, match="none of the 2 as-ofs"):
        batchscore.explain(row.run_id, accounts[0]["account_id"], store=world.store, as_of=datetime(2026, 1, 9, tzinfo=UTC))


def test_the_command_takes_ids_from_stdin_and_its_errors_hold_none(world: SmallWorld) -> None:
    flag = flags_of(world, "after")[0]
    account, where = str(flag.account_id), ("--store", str(world.store))
    by_flag = told("abuse/-", *where, stdin=f"{account}\n")
    assert by_flag.return_value == 0, by_flag.output
    assert "the same to the bit" in by_flag.output
    assert told(f"abuse/{account}", *where).output == by_flag.output
    by_run = told(flag.run_id, "--account", "-", "--as-of", f"{flag.as_of:%Y-%m-%d}", *where, stdin=account)
    assert by_run.output == by_flag.output
    as_json = told(f"{flag.run_id}/-", "--json", *where, stdin=f"{account}\r\n")
    assert Explanation.model_validate_json(as_json.output).account_id == flag.account_id
    stranger = "987654321987654" if world.kind == "integer" else "someone@example.org"
    for arguments in (["abuse/-"], [f"{flag.run_id}/-"]):
        error = told(*arguments, *where, stdin=stranger).exception
        assert isinstance(error, Refused)
        assert error.reason in {"flag_unknown", "account_unknown"}
        assert stranger not in str(error)
    for wrong in (["abuse"], [flag.run_id], ["abuse/1", "--account", "1"]):
        assert "name an account once" in str(told(*wrong, *where).exception)
    if world.kind == "integer":
        assert "no whole number" in str(told("abuse/-", *where, stdin="12x4\n").exception)


def forged_flag(world: SmallWorld) -> None:
    with sqlite3.connect(world.store / "batchscore.db") as database:
        database.execute("UPDATE flags SET score = score / 2")


def forged_scores(world: SmallWorld) -> None:
    """Other scores in the files of the flagging run, receipts and the table of files brought along: only making again tells."""
    from batchscore.files import file_sha256

    with sqlite3.connect(world.store / "batchscore.db") as database:
        for receipt in list(open_reader(world.store).receipts(run_of(world, "after"), Stage.SCORE)):
            (out,) = [one for one in receipt.outputs if one.role == "scores"]
            table = pq.read_table(world.store / out.path)
            moved = pa.array(table["margin"].to_numpy() + 0.5, pa.float32())
            forged = out.path.replace(".parquet", "-forged.parquet")
            pq.write_table(table.set_column(table.column_names.index("margin"), "margin", moved), world.store / forged)
            text = receipt.model_dump_json().replace(out.path, forged)
            text = text.replace(out.sha256, file_sha256(world.store / forged))
            where = (text, run_of(world, "after"), "score", receipt.number)
            database.execute("UPDATE partitions SET receipt = ? WHERE run_id = ? AND stage = ? AND number = ?", where)


def flipped_rollup(world: SmallWorld) -> None:
    receipt = next(iter(open_reader(world.store).receipts(run_of(world, "after"), Stage.ROLLUP)))
    path = world.store / receipt.outputs[0].path
    held = bytearray(path.read_bytes())
    held[len(held) // 2] ^= 1
    path.write_bytes(held)


@pytest.mark.parametrize("world", ["integer"], indirect=True)
@pytest.mark.parametrize(
    ("lie", "checks"),
    [(forged_flag, {"flag"}), (forged_scores, {"margin", "decision", "flag"}), (flipped_rollup, {"rows", "margin", "outcome"})],
)
def test_what_is_not_as_it_was_is_said_and_ends_with_4(
    world: SmallWorld, tmp_path: Path, lie: Callable[[SmallWorld], None], checks: set[str]
) -> None:
    flag = flags_of(world, "after")[0]
    copy = SmallWorld(folder=tmp_path / "world", n_accounts=0, kind=world.kind)
    shutil.copytree(world.folder, copy.folder)
    moved(copy, world)
    lie(copy)
    said = told(f"{flag.run_id}/{flag.account_id}", "--store", copy.store)
    assert said.return_value == HELD, (said.output, said.exception)
    assert "NOT AS IT WAS" in said.output
    found = batchscore.explain(flag.run_id, flag.account_id, store=copy.store)
    assert {check.name for check in found.checks if check.untrue} >= checks & {check.name for check in found.checks}
    assert {check.name for check in found.checks if check.untrue} & checks


def moved(copy: SmallWorld, world: SmallWorld) -> None:
    """A store holds absolute paths: those of the copy are the copy's."""
    with sqlite3.connect(copy.store / "batchscore.db") as database:
        for table, columns in (("runs", ("plan", "decision_path", "memory_path")), ("partitions", ("work",))):
            for column in columns:
                database.execute(f"UPDATE {table} SET {column} = REPLACE({column}, ?, ?)", (str(world.folder), str(copy.folder)))


def test_without_the_bundle_what_can_be_compared_is_and_the_kept_reasons_are_shown(
    world: SmallWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: Reference) -> Scorer:  # a process that loaded it once would not miss the folder
        raise Refused("file_missing", "cannot be read", where="manifest.json")

    flag = flags_of(world, "after")[0]
    monkeypatch.setattr("batchscore.operations.explain.load_scorer", gone)
    found = explained(world, "after", flag.account_id)
    assert [check.name for check in found.checks if check.untrue] == ["margin"]
    assert {"rows", "decision", "flag"} <= {check.name for check in found.checks}
    assert (found.outcome, found.score, found.reasons) == ("scored", flag.score, flag.reasons)


def test_a_decision_that_is_damaged_is_for_a_person(world: SmallWorld) -> None:
    row = open_reader(world.store).run(run_of(world, "simulated"))
    assert row.decision is not None
    whole = Path(row.decision.path).read_bytes()
    Path(row.decision.path).write_bytes(whole[:-1])
    try:
        for command in (["explain", f"{row.run_id}/1"], ["compare", row.run_id, row.run_id]):
            with pytest.raises(Held) as held:
                call(*command, "--store", world.store)
            assert held.value.exit_code == HELD
    finally:
        Path(row.decision.path).write_bytes(whole)


def test_who_could_not_be_scored_is_told_why(tmp_path: Path) -> None:
    """One range is set aside; in the other the data reach back too little at first, and some accounts are infinite."""
    made = make_small_world(tmp_path, n_accounts=120)
    for path in (made.folder / "accounts").glob("*.parquet"):
        accounts = pq.read_table(path)
        plans = [float("inf") if place % 2 else 1.0 for place in range(len(accounts))]
        pq.write_table(accounts.set_column(accounts.column_names.index("plan"), "plan", pa.array(plans)), path)
    features = made.folder / "features.yaml"
    features.write_text(features.read_text() + "coverage: 0.9\n")

    row = walk(made, InlineExecutor(Poisoned((Stage.SCORE, 1))), partition_rows="60")
    reader = open_reader(made.store)
    outcomes: dict[str, Explanation] = {}
    for receipt in reader.receipts(row.run_id, Stage.FREEZE):
        for out in receipt.outputs:
            if out.role == "snapshot":
                accounts = pq.read_table(made.store / out.path)["account_id"].to_pylist()
                for account, as_of in product(accounts[::12], (FIRST, LAST)):
                    found = batchscore.explain(row.run_id, account, store=made.store, as_of=as_of)
                    assert found.true, found.checks
                    outcomes[found.outcome] = found
    assert {"quarantined", "unscoreable", "rejected"} <= set(outcomes)
    assert outcomes["rejected"].code == "nonfinite_feature"
    assert outcomes["quarantined"].code == "input_corrupt"
    for found in (outcomes["quarantined"], outcomes["unscoreable"], outcomes["rejected"]):
        assert found.selection is not None
        assert (found.score, found.selection.because) == (None, "not_scored")
    assert outcomes["unscoreable"].features, "what there is of its features is shown"


def test_a_run_that_has_not_decided_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_small_world(tmp_path, n_accounts=40)

    def stopped(*_: object, **__: object) -> None:
        raise PartitionError("attempt_failed", "stopped by the test")

    monkeypatch.setattr("batchscore.pipeline.make_decision", stopped)
    with pytest.raises(BatchscoreError, match="stopped by the test"):
        batchscore.run(world.spec(), inline=True)
    (row,) = open_reader(world.store).runs()
    with pytest.raises(Refused) as refused:
        batchscore.explain(row.run_id, 0, store=world.store)
    assert refused.value.reason == "run_unfinished"
