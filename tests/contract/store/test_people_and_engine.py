"""What is people's stays people's: no run, undo, expiry or statement changes a flag that somebody is at or decided on."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from batchscore.desk import Wanted
from batchscore.errors import BatchscoreError
from batchscore.flag import Disposition, FlagState
from batchscore.store import Ledger, ReviewDesk, open_desk, open_reader
from tests.contract.store.at_the_desk import HOUR, execute, held, let_claims_run_out, refused, released, says, shown
from tests.contract.store.conftest import AS_OF

MANY = 10_000 if os.environ.get("BATCHSCORE_EVERY_FAULT") else 300  # `make chaos` has all of GUARANTEES.md's


def test_a_later_run_adds_evidence_to_the_flag_that_stands_and_never_a_second_flag(
    store: Ledger, desk: ReviewDesk, store_folder: Path
) -> None:
    first = released(store, store_folder, "first", 7)
    desk.claim("abuse", by="ann", for_=HOUR)
    second = released(store, store_folder, "second", 7, score=0.9)
    flag = held(store_folder, 7)
    assert (flag.flag.run_id, flag.state, flag.version) == (first.run_id, FlagState.CLAIMED, 2)
    assert [(one.number, one.flag.run_id, one.flag.score) for one in flag.evidence] == [
        (1, first.run_id, 0.75),
        (2, second.run_id, 0.9),
    ]
    refusal = refused(desk, says(7, evidence=1))
    assert refusal.reason == "flag_changed"
    assert f"evidence 2 came, of run {second.run_id} as of 2026-01-15: score 0.7500 → 0.9000" in refusal.what
    store.undo(second.run_id, by="cid", why="wrong model")
    refusal = refused(desk, says(7, evidence=2))
    assert "evidence 2 was withdrawn" in refusal.what
    assert desk.decide([says(7, evidence=3)]) == 1


def test_the_undo_of_a_run_leaves_what_a_person_is_at_and_takes_it_back_when_they_give_it_up(
    store: Ledger, desk: ReviewDesk, store_folder: Path
) -> None:
    run = released(store, store_folder, "first", 7, 8, 9)
    later = released(store, store_folder, "later", 8)
    desk.claim("abuse", by="ann", for_=HOUR, only=[7, 8])
    left = store.undo(run.run_id, by="cid", why="wrong threshold").left
    assert [(one.account_id, one.state) for one in left] == [(7, "claimed"), (8, "claimed")]
    assert shown(store_folder) == [(7, "claimed"), (8, "claimed")]
    assert refused(desk, says(7, evidence=1)).reason == "flag_changed", "she is told that its run was undone"
    assert desk.decide([says(7, evidence=2)]) == 1
    desk.return_claims("abuse", by="ann")
    assert held(store_folder, 7).state is FlagState.CLEARED
    assert [(row.flag.account_id, row.flag.run_id) for row in open_reader(store_folder).queue("abuse", limit=9)] == [
        (8, later.run_id)
    ]
    assert store.reader().undo(run.run_id).n_withdrawn == 2


def test_nobody_is_told_of_a_claim_that_ran_out_on_a_run_that_was_undone(
    store: Ledger, desk: ReviewDesk, store_folder: Path
) -> None:
    run = released(store, store_folder, "first", 7)
    desk.claim("abuse", by="ann", for_=HOUR)
    store.undo(run.run_id, by="cid", why="wrong threshold")
    let_claims_run_out(store_folder)
    assert shown(store_folder) == []
    assert desk.claim("abuse", by="bob", for_=HOUR) == ()
    assert held(store_folder, 7).state is FlagState.WITHDRAWN
    fresh = released(store, store_folder, "fresh", 7)
    assert held(store_folder, 7).flag.run_id == fresh.run_id
    assert shown(store_folder, states=(FlagState.WITHDRAWN,)) == [(7, "withdrawn")]
    assert [len(page) for page in open_reader(store_folder).all_reviewed(Wanted())] == [1]


def test_old_flags_expire_unless_somebody_is_at_them_or_a_run_added_to_them(
    store: Ledger, desk: ReviewDesk, store_folder: Path
) -> None:
    run = released(store, store_folder, "first", 7, 8, 9)
    execute(store_folder, f"UPDATE flags SET opened_at = opened_at - 86400000000 WHERE run_id = '{run.run_id}'")
    desk.claim("abuse", by="ann", for_=HOUR)
    released(store, store_folder, "again", 8, score=0.9)
    released(store, store_folder, "same", 9)  # says nothing new of it
    undone = released(store, store_folder, "undone", 9, score=0.9)
    store.undo(undone.run_id, by="cid", why="wrong model")
    assert desk.expire("abuse", by="cron", older_than=2 * HOUR, apply=False) == 1
    assert desk.expire("abuse", by="cron", older_than=2 * HOUR, apply=True) == 1
    assert desk.expire("abuse", by="cron", older_than=2 * HOUR, apply=True) == 0
    assert shown(store_folder) == [(7, "claimed"), (8, "open")]
    assert held(store_folder, 9).state is FlagState.EXPIRED
    assert desk.decide([says(9)]) == 1, "a decision that comes late is one still"


OF_A_FLAG = "queue, account_id, run_id, as_of, rank, score, margin, reasons, bundle_digest, state, opened_at"
OF_ANOTHER_RUN = OF_A_FLAG.replace("run_id", "'r-0badf00d-1'")
STATEMENTS = (
    "UPDATE flags SET state = 'open', open_marker = 1, closed_at = NULL WHERE account_id = 7",
    "UPDATE flags SET state = 'withdrawn' WHERE account_id = 7",
    "UPDATE flags SET state = 'confirmed' WHERE account_id = 7",
    "UPDATE flags SET score = 0.1 WHERE account_id = 7",
    "UPDATE flags SET closed_at = 5 WHERE account_id = 7",
    "DELETE FROM flags WHERE account_id = 7",
    "UPDATE flags SET state = 'withdrawn' WHERE account_id = 8",
    "UPDATE flags SET open_marker = NULL WHERE account_id = 8",
    "UPDATE flags SET state = 'cleared', open_marker = NULL WHERE account_id = 9",
    "UPDATE dispositions SET disposition = 'confirmed', state = 'confirmed'",
    "DELETE FROM dispositions",
    "REPLACE INTO dispositions SELECT * FROM dispositions",
    "REPLACE INTO flags SELECT * FROM flags WHERE account_id = 7",
    "REPLACE INTO flags SELECT * FROM flags WHERE account_id = 8",
    f"REPLACE INTO flags ({OF_A_FLAG}, open_marker) SELECT {OF_ANOTHER_RUN}, 1 FROM flags WHERE account_id = 8",
    (
        "INSERT INTO flags (queue, account_id, run_id, as_of, rank, score, margin, reasons, bundle_digest, state, opened_at) "
        "SELECT queue, 10, run_id, as_of, rank, score, margin, reasons, bundle_digest, 'cleared', opened_at FROM flags LIMIT 1"
    ),
)


def test_the_database_itself_keeps_whoever_it_is_from_what_a_person_decided(
    store: Ledger, desk: ReviewDesk, store_folder: Path, database: str
) -> None:
    released(store, store_folder, "first", 7, 8, 9)
    desk.decide([says(7)])
    desk.claim("abuse", by="ann", for_=HOUR)
    before = execute(store_folder, "SELECT * FROM flags ORDER BY account_id").all()
    for statement in STATEMENTS:
        said = statement.replace("rank,", "`rank`,") if database == "mysql" else statement
        with pytest.raises(sa.exc.DBAPIError, match=r"person touched|only people|decision is never"):
            execute(store_folder, said)
    if database == "sqlite":
        with pytest.raises(sa.exc.DBAPIError, match="not replaced"):
            execute(store_folder, "UPDATE OR REPLACE flags SET account_id = 8 WHERE account_id = 9")
    assert execute(store_folder, "SELECT * FROM flags ORDER BY account_id").all() == before


def undo_and_release_again(store: Ledger, folder: Path, ids: Sequence[int]) -> None:
    """Five runs more of the same accounts, an old backfill after the newer ones, and the undo of each."""
    runs = [released(store, folder, f"again-{number}", *ids) for number in range(5)]
    runs.append(released(store, folder, "backfill", *ids, as_of=AS_OF - timedelta(days=30)))
    for run in runs:
        store.undo(run.run_id, by="cid", why="to see that nothing is lost")


@pytest.mark.timeout(1_800)
def test_no_run_and_no_undo_changes_a_decision(store: Ledger, desk: ReviewDesk, store_folder: Path) -> None:
    ids = list(range(MANY))
    first = released(store, store_folder, "first", *ids)
    words = list(Disposition)
    desk.decide([says(account_id, words[account_id % 3]) for account_id in ids[:-1]])
    of_people = f"SELECT * FROM flags WHERE run_id = '{first.run_id}' ORDER BY account_id"
    before = execute(store_folder, of_people).all(), execute(store_folder, "SELECT * FROM dispositions ORDER BY account_id").all()
    undo_and_release_again(store, store_folder, ids)
    store.undo(first.run_id, by="cid", why="to see that nothing is lost")
    after = execute(store_folder, of_people).all(), execute(store_folder, "SELECT * FROM dispositions ORDER BY account_id").all()
    assert before[1] == after[1]
    assert [row for row in before[0] if row.state != "open"] == [row for row in after[0] if row.state != "withdrawn"]
    assert shown(store_folder) == []


def at_once(*works: Callable[[], object]) -> list[BatchscoreError]:
    """Do all of it at one moment; what was refused."""
    barrier = threading.Barrier(len(works))
    refusals: list[BatchscoreError] = []

    def do(work: Callable[[], object]) -> None:
        barrier.wait()
        try:
            work()
        except BatchscoreError as refusal:
            refusals.append(refusal)

    threads = [threading.Thread(target=do, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return refusals


def test_whoever_is_first_of_undo_claim_decision_and_expiry_no_state_is_lost(store: Ledger, store_folder: Path) -> None:
    """Events are in the order of commits, so following them must lead to what the tables hold; and verify's rule must hold."""
    n = 6
    for number in range(n):
        queue_of = range(number * 10, number * 10 + 4)
        run = released(store, store_folder, f"race-{number}", *queue_of)
        first = queue_of[0]
        desks = [open_desk(store_folder) for _ in range(4)]
        desks[0].claim("abuse", by="bob", for_=HOUR, only=[first + 3])
        let_claims_run_out(store_folder)
        refusals = at_once(
            partial(store.undo, run.run_id, by="cid", why="a race"),
            partial(desks[0].decide, [says(first), says(first + 1)]),
            partial(desks[1].claim, "abuse", by="bob", for_=HOUR, only=[first + 1, first + 2]),
            partial(desks[2].claim, "abuse", by="dan", for_=HOUR, only=[first + 3]),
            partial(desks[3].expire, "abuse", by="cron", older_than=timedelta(0), apply=True),
        )
        for refusal in refusals:
            assert refusal.reason in {"flag_taken", "flag_absent", "flag_changed", "flag_decided", "dispositions_invalid"}, (
                refusal
            )
        assert open_reader(store_folder).misstated(run.run_id) == 0
    stands: dict[tuple[str, Any], str] = {}
    for event in open_reader(store_folder).events(0, limit=10_000):
        stands[event.run_id, event.account_id] = event.state.value
    rows = execute(store_folder, "SELECT run_id, account_id, state FROM flags").all()
    assert stands == {(row.run_id, row.account_id): row.state for row in rows}
