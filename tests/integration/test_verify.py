"""verify: a run as it was is true; each lie planted in its files and rows is found, and told without an account id."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from batchscore.files import file_sha256
from batchscore.plan import Stage
from batchscore.store import open_reader
from batchscore.store.place import engine_of
from tests.commands import call
from tests.small_world import make_small_world, pack

Plant = Callable[[Path], None]
UNDONE, FLAGGED = "undone", "flagged"


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two runs: one undone, and the next generation of its plan, whose flags stand; both with a shadow bundle."""
    world = make_small_world(tmp_path_factory.mktemp("honest"))
    pack(world.folder, np.random.default_rng(2), name="candidate", place="candidate")
    world.spec(bundles="[{path: candidate, shadow: true}, bundle]")
    call("run", world.spec_path, "--inline")
    call("undo", runs_of(world.store)[UNDONE], "--apply", "--why", "a test", "--store", world.store)
    call("run", world.spec_path, "--inline", "--again")
    return world.store


@pytest.fixture
def store(honest: Path) -> Iterator[Path]:
    """The store itself, put back after the test: plans and references name its place."""
    kept = honest.with_name("kept")
    shutil.copytree(honest, kept)
    yield honest
    shutil.rmtree(honest)
    kept.rename(honest)


def runs_of(store: Path) -> dict[str, str]:
    rows = sorted(open_reader(store).runs(), key=lambda row: row.generation)
    return {UNDONE: rows[0].run_id, FLAGGED: rows[-1].run_id}


def sql(*statements: str) -> Plant:
    def plant(store: Path) -> None:
        with engine_of(store).begin() as connection:
            for statement in statements:
                connection.execute(sa.text(statement.format(**runs_of(store))))

    return plant


def flip(path: Path) -> None:
    """One bit, in the middle."""
    held = bytearray(path.read_bytes())
    held[len(held) // 2] ^= 1
    path.write_bytes(held)


def flipped(stage: Stage) -> Plant:
    """One bit of the first file of a stage."""

    def plant(store: Path) -> None:
        receipt = next(iter(open_reader(store).receipts(runs_of(store)[FLAGGED], stage)))
        flip(store / receipt.outputs[0].path)

    return plant


def memory_of(store: Path) -> Path:
    row = open_reader(store).run(runs_of(store)[FLAGGED])
    assert row.memory is not None
    return Path(row.memory.path)


def forged_decision(store: Path) -> None:
    """Another decision, under its own digest: only deciding again tells."""
    row = open_reader(store).run(runs_of(store)[FLAGGED])
    assert row.decision is not None
    forged = store / "decisions" / "forged.parquet"
    table = pq.read_table(row.decision.path)
    pq.write_table(table.slice(1), forged)
    digest = file_sha256(forged)
    sql(f"UPDATE runs SET decision_path = '{forged}', decision_sha256 = '{digest}' WHERE run_id = '{{flagged}}'")(store)


def test_a_run_as_it_was_is_true_and_so_is_an_undone_one(honest: Path) -> None:
    for run_id in runs_of(honest).values():
        said = call("verify", run_id, "--store", honest)
        assert said.code == 0, said.output
        assert "all of it is true" in said.stdout
        head = open_reader(honest).audit_head()[1]
        assert head in said.stdout
        assert head in call("report", run_id, "--json", "--store", honest).stdout


LIES: dict[str, tuple[str, Plant]] = {
    "a score file is changed": ("files", flipped(Stage.SCORE)),
    "a shadow's score file is changed": ("files", flipped(Stage.SHADOW)),
    "a rollup is changed": ("files", flipped(Stage.ROLLUP)),
    "a file is gone": ("files", lambda store: min(store.glob("freeze/*/*.parquet")).unlink()),
    "the memory is changed": ("files", lambda store: flip(memory_of(store))),
    "another decision": ("decision", forged_decision),
    "a partition is deleted": ("rows", sql("DELETE FROM partitions WHERE run_id = '{flagged}' AND stage = 'score'")),
    "a receipt is taken back": ("rows", sql("UPDATE partitions SET state = 'planned' WHERE run_id = '{flagged}' AND number = 0")),
    "a reference is deleted": ("files", sql("DELETE FROM run_outputs WHERE run_id = '{flagged}'")),
    "a flag is deleted": (
        "flags",
        sql("DELETE FROM flags WHERE run_id = '{flagged}' AND account_id = (SELECT MIN(account_id) FROM flags)"),
    ),
    "a flag is doubled": (
        "flags",
        sql(
            "INSERT INTO flags (queue, account_id, run_id, as_of, rank, score, margin, reasons, bundle_digest, state, opened_at) "
            "SELECT 'other', account_id, run_id, as_of, rank, score, margin, reasons, bundle_digest, state, opened_at "
            "FROM flags WHERE run_id = '{flagged}' LIMIT 1"
        ),
    ),
    "a score is edited": ("flags", sql("UPDATE flags SET score = score + 1e-9 WHERE run_id = '{flagged}' AND rank = 1")),
    "a withdrawn flag is open": ("flags", sql("UPDATE flags SET state = 'withdrawn' WHERE run_id = '{flagged}' AND rank = 1")),
    "a flag is withdrawn without an undo": (
        "audit",
        sql("UPDATE flags SET state = 'withdrawn', open_marker = NULL WHERE run_id = '{flagged}' AND rank = 1"),
    ),
    "a decision is invented": (
        "flags",
        sql(
            "DROP TRIGGER flags_of_people_stay",
            "UPDATE flags SET state = 'cleared', open_marker = NULL WHERE run_id = '{flagged}' AND rank = 1",
        ),
    ),
    "an entry is edited": ("audit", sql("UPDATE audit SET who = 'nobody' WHERE number = 2")),
    "an entry is deleted": ("audit", sql("DELETE FROM audit WHERE number = 3")),
    "two entries change places": (
        "audit",
        sql(
            "UPDATE audit SET number = -1 WHERE number = 3",
            "UPDATE audit SET number = 3 WHERE number = 4",
            "UPDATE audit SET number = 4 WHERE number = -1",
        ),
    ),
    "the tail is cut": ("audit", sql("DELETE FROM audit WHERE number = (SELECT number FROM audit_head)")),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_each_lie_is_found_where_it_was_planted(store: Path, lie: str) -> None:
    check, plant = LIES[lie]
    ids = {str(row.flag.account_id) for row in open_reader(store).queue(None, limit=1_000)}
    plant(store)
    said = call("verify", runs_of(store)[FLAGGED], "--json", "--store", store)
    assert said.code == 4
    found = json.loads(said.stdout)
    assert check in {each["name"] for each in found["checks"] if each["n_untrue"]}, found
    assert not found["true"]
    assert not any(len(account) > 3 and account in said.output for account in ids)
