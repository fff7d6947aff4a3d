"""verify: a run as it was is true; each lie planted in its files and rows is found, and told without an account id."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
import pytest

from batchscore.dispatch.limits import Limits
from batchscore.errors import Damaged, Interrupted
from batchscore.executors.inline import InlineExecutor
from batchscore.files import file_sha256
from batchscore.operations.verify import verify_run
from batchscore.pipeline import run
from batchscore.plan import Stage
from batchscore.planner import make_plan
from batchscore.ports import StoreReader
from batchscore.store import open_reader, open_store
from batchscore.store.place import engine_of
from tests.commands import call
from tests.fake_attempts import AtTheNth, Noted
from tests.small_world import make_small_world, pack

Plant = Callable[[Path], None]
UNDONE, FLAGGED = "undone", "flagged"


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two runs: one undone, and the next generation of its plan, whose flags stand; both with a shadow bundle.

    People were at its flags of ranks 3 to 5, and some of its reserve was released.
    """
    world = make_small_world(tmp_path_factory.mktemp("honest"))
    pack(world.folder, np.random.default_rng(2), name="candidate", place="candidate")
    policy = "{queue: abuse, threshold: 0.2, budget: 20, reserve: 10}"
    world.spec(bundles="[{path: candidate, shadow: true}, bundle]", policy=policy)
    call("run", world.spec_path, "--inline")
    call("undo", runs_of(world.store)[UNDONE], "--apply", "--why", "a test", "--store", world.store)
    call("run", world.spec_path, "--inline", "--again")
    ids = {row.flag.rank: str(row.flag.account_id) for row in open_reader(world.store).queue(None, limit=100)}
    call("queue", "claim", ids[3], "--by", "ben", "--store", world.store)
    call("queue", "claim", ids[4], "--by", "ben", "--store", world.store)
    call("queue", "release-claim", ids[4], "--by", "ben", "--store", world.store)
    flagged = runs_of(world.store)[FLAGGED]
    said = ("confirmed", "--saw", "1", "--run", flagged, "--by", "anna", "--why", "a test")
    call("queue", "decide", ids[5], *said, "--store", world.store)
    call("release", flagged, "--count", "2", "--apply", "--store", world.store)
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
                connection.exec_driver_sql(statement.format(**runs_of(store)))

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


def swapped_receipts(store: Path) -> None:
    """Two partitions name each other's scores: all digests are true, and so is their sum."""
    of_scores = f"run_id = '{runs_of(store)[FLAGGED]}' AND stage = 'score'"
    with engine_of(store).begin() as connection:
        asked = f"SELECT number, receipt FROM partitions WHERE {of_scores} ORDER BY number LIMIT 2"
        rows = connection.exec_driver_sql(asked).all()
        first, second = (json.loads(row.receipt) for row in rows)
        first["outputs"], second["outputs"] = second["outputs"], first["outputs"]
        for row, receipt in zip(rows, (first, second), strict=True):
            put = f"UPDATE partitions SET receipt = ? WHERE {of_scores} AND number = ?"
            connection.exec_driver_sql(put, (json.dumps(receipt), row.number))


def swapped_events(store: Path) -> None:
    """A flag was claimed and given back; whoever follows the events reads that it was given back, and then claimed."""
    with engine_of(store).begin() as connection:
        asked = (
            "SELECT MIN(number), MAX(number) FROM events WHERE act IN ('claimed', 'returned') "
            "AND account_id = (SELECT account_id FROM events WHERE act = 'returned')"
        )
        claimed, returned = connection.exec_driver_sql(asked).one()
        for was, becomes in ((claimed, 0), (returned, claimed), (0, returned)):
            connection.exec_driver_sql("UPDATE events SET number = ? WHERE number = ?", (becomes, was))


def by_hand(*statements: str) -> Plant:
    """Past the triggers that keep people's rows, as whoever owns the tables can."""

    def plant(store: Path) -> None:
        with engine_of(store).begin() as connection:
            for (name,) in connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'trigger'").all():
                connection.exec_driver_sql(f"DROP TRIGGER {name}")
        sql(*statements)(store)

    return plant


HEAD_SET_BACK = (
    "UPDATE audit_head SET number = (SELECT MAX(number) FROM audit), "
    "digest = (SELECT digest FROM audit ORDER BY number DESC LIMIT 1)"
)


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
        "desk",
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
    "scores change places between receipts": ("rows", swapped_receipts),
    "a run is said to have stopped": ("rows", sql("UPDATE runs SET state = 'interrupted' WHERE run_id = '{flagged}'")),
    "a partition is at another's address": (
        "rows", sql("UPDATE partitions SET address = 'x' WHERE run_id = '{flagged}' AND stage = 'score' AND number = 0"),
    ),
    "a partition has another number": (
        "rows", sql("UPDATE partitions SET number = 99 WHERE run_id = '{flagged}' AND stage = 'score' AND number = 0"),
    ),
    "progress is made up": ("rows", sql("UPDATE partitions SET n_rows = n_rows + 1 WHERE run_id = '{flagged}' AND number = 0")),
    "a size is edited": ("files", sql("UPDATE outputs SET n_bytes = n_bytes + 1")),
    "a run's name is edited": ("rows", sql("UPDATE runs SET name = 'other' WHERE run_id = '{flagged}'")),
    "a release is hidden": ("desk", sql("UPDATE runs SET released_at = NULL WHERE run_id = '{flagged}'")),
    "a release is dated back": ("desk", sql("UPDATE runs SET released_at = released_at - 86400 WHERE run_id = '{flagged}'")),
    "a request is invented": ("desk", sql("UPDATE runs SET request_number = 1 WHERE run_id = '{flagged}'")),
    "a decision is turned round": (
        "desk",
        by_hand(
            "UPDATE dispositions SET disposition = 'cleared', state = 'cleared'",
            "UPDATE flags SET state = 'cleared' WHERE state = 'confirmed'",
        ),
    ),
    "a decision is another's": ("desk", by_hand("UPDATE dispositions SET reviewer = 'carl'")),
    "a decision is dated back": ("desk", by_hand("UPDATE dispositions SET decided_at = decided_at - 1")),
    "why it was decided is edited": ("desk", by_hand("UPDATE dispositions SET why = 'he asked me to'")),
    "a decision is taken back": (
        "desk",
        by_hand(
            "DELETE FROM dispositions",
            "UPDATE flags SET state = 'open', open_marker = 1, closed_at = NULL WHERE state = 'confirmed'"
        ),
    ),
    "a decision and its flag are invented": (
        "desk",
        by_hand(
            "INSERT INTO dispositions SELECT queue, account_id, run_id, 1, 'cleared', 'cleared', 'anna', opened_at, opened_at, "
            "1, run_id, '', 'queue' FROM flags WHERE run_id = '{flagged}' AND rank = 9",
            "UPDATE flags SET state = 'cleared', open_marker = NULL WHERE run_id = '{flagged}' AND rank = 9",
        ),
    ),
    "a claim is another's": ("desk", sql("UPDATE claims SET reviewer = 'carl' WHERE ended_at IS NULL")),
    "a flag is said to have expired": (
        "desk",
        sql("UPDATE flags SET state = 'expired', open_marker = NULL WHERE run_id = '{flagged}' AND rank = 1"),
    ),
    "a flag is said to have given way": (
        "desk",
        sql("UPDATE flags SET state = 'overtaken', open_marker = NULL WHERE run_id = '{flagged}' AND rank = 1"),
    ),
    "a flag is said to have come as evidence": (
        "desk",
        sql(
            "UPDATE flags SET state = 'overtaken', open_marker = NULL, closed_at = opened_at, released_as = 'evidence', "
            "overtaken_by = '{undone}' WHERE run_id = '{flagged}' AND rank = 1"
        ),
    ),
    "what a release made of a flag is edited": (
        "desk",
        sql("UPDATE flags SET released_as = 'evidence' WHERE run_id = '{flagged}' AND rank = 1"),
    ),
    "a flag of another run is moved here": (
        "flags",
        sql("UPDATE flags SET run_id = '{flagged}', queue = 'other' WHERE run_id = '{undone}' AND rank = 1"),
    ),
    "an event is deleted": ("desk", sql("DELETE FROM events WHERE act = 'decided'")),
    "an event is edited": ("desk", sql("UPDATE events SET state = 'cleared' WHERE act = 'decided'")),
    "an event is another queue's": ("desk", sql("UPDATE events SET queue = 'other' WHERE act = 'decided'")),
    "two events of a flag change places": ("desk", swapped_events),
    "an event of another run is deleted": ("desk", sql("DELETE FROM events WHERE act = 'withdrawn' AND run_id = '{undone}'")),
    "a release's event is edited": ("desk", sql("UPDATE events SET n = n - 1 WHERE act = 'released' AND run_id = '{flagged}'")),
    "the last entry and its head are cut": (
        "desk",
        sql("DELETE FROM audit WHERE number = (SELECT number FROM audit_head)", HEAD_SET_BACK),
    ),
    "the trail and its head are cut back to before people came": (
        "desk",
        sql("DELETE FROM audit WHERE number > (SELECT MAX(number) FROM audit WHERE act = 'undone')", HEAD_SET_BACK),
    ),
    "the whole trail is cut": (
        "desk",
        sql("DELETE FROM audit", f"UPDATE audit_head SET number = 0, digest = '{'0' * 64}'"),
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


def test_a_run_whose_plan_cannot_be_read_is_told_of_as_damaged_and_not_as_a_bug(store: Path) -> None:
    flagged = runs_of(store)[FLAGGED]
    sql("UPDATE runs SET plan = plan || 'x' WHERE run_id = '{flagged}'")(store)
    for asked in (("verify", flagged), ("status",), ("status", flagged), ("undo", flagged)):
        with pytest.raises(Damaged, match="its row was changed by hand") as told:
            call(*asked, "--store", store)
        assert (told.value.exit_code, told.value.where) == (4, f"run {flagged}")


class Living:
    """A reader of a store that lives: after each answer a driver has come one attempt further."""

    def __init__(self, reader: StoreReader, step: Callable[[], None]) -> None:
        self._reader, self._step = reader, step

    def __getattr__(self, name: str) -> Any:
        asked = getattr(self._reader, name)

        def answered(*arguments: Any, **more: Any) -> Any:
            found = asked(*arguments, **more)
            found = iter(list(found)) if isinstance(found, Iterator) else found
            self._step()
            return found

        return answered


def test_what_a_driver_commits_meanwhile_is_no_lie(tmp_path: Path) -> None:
    world = make_small_world(tmp_path, n_accounts=150)
    plan = make_plan(world.spec(partition_rows="5"))
    store = open_store(Path(plan.spec.store), "integer")

    def attempt_once() -> None:
        stop = threading.Event()
        executor = InlineExecutor(AtTheNth(1, stop.set))
        with suppress(Interrupted):
            run(plan, executor=executor, store=store, observer=lambda _event: None, limits=Limits(stop=stop))

    attempt_once()
    row = store.reader().runs()[0]
    found = verify_run(row, cast(StoreReader, Living(store.reader(), attempt_once)), Path(plan.spec.store))
    assert found.true, found
    assert store.reader().run(row.run_id).released_at is not None, "it ended while it was looked at"


@pytest.mark.parametrize(("stage", "nth"), [(Stage.FREEZE, 1), (Stage.ROLLUP, 1), (Stage.SCORE, 2), (Stage.REASONS, 1)])
def test_a_run_that_was_stopped_at_once_is_true_before_and_after_it_is_resumed(tmp_path: Path, stage: Stage, nth: int) -> None:
    def stop_at_once() -> None:
        raise KeyboardInterrupt

    plan = make_plan(make_small_world(tmp_path, n_accounts=120).spec())
    store = open_store(Path(plan.spec.store), "integer")
    with pytest.raises(Interrupted, match="stopped at once"):
        run(plan, executor=InlineExecutor(AtTheNth(nth, stop_at_once, stage)), store=store, observer=lambda _event: None)
    for state, executor in (("interrupted", InlineExecutor(Noted())), ("finished", None)):
        (row,) = store.reader().runs()
        assert row.state == state
        found = verify_run(row, store.reader(), Path(plan.spec.store))
        assert found.true, [untrue for check in found.checks for untrue in check.untrue]
        if executor is not None:
            run(plan, executor=executor, store=store, observer=lambda _event: None)
