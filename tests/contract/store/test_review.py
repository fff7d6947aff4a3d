"""The desk: claims that nobody doubles, decisions on what was seen, and an engine that changes nothing a person decided."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from batchscore.desk import Happened, Opinion, Reviewed, Wanted
from batchscore.errors import BatchscoreError, Refused
from batchscore.flag import AccountId, Disposition, FlagState
from batchscore.ports import ReleaseCount, RunHandle, Suppression
from batchscore.store import Ledger, ReviewDesk, open_desk, open_reader, reviewed
from tests.contract.store.conftest import AS_OF, OpenStore, make_flag, make_plan
from tests.dba import dba_engine

HOUR = timedelta(hours=1)
MANY = 10_000 if os.environ.get("BATCHSCORE_EVERY_FAULT") else 300  # `make chaos` has all of GUARANTEES.md's


def released(store: Ledger, folder: Path, name: str, *ids: AccountId, **more: Any) -> RunHandle:
    run, _ = store.open(make_plan(folder, name=name), owner="me")
    made = (make_flag(account_id, run_id=run.run_id, rank=n + 1).model_copy(update=more) for n, account_id in enumerate(ids))
    store.release(run, made)
    store.close(run, "finished")
    return run


@pytest.fixture
def desk(store: Ledger, store_folder: Path) -> ReviewDesk:
    return open_desk(store_folder)


def says(account_id: AccountId, disposition: Disposition = Disposition.CLEARED, by: str = "ann", **more: Any) -> Opinion:
    return Opinion(queue="abuse", account_id=account_id, disposition=disposition, by=by, **more)


def held(folder: Path, account_id: AccountId) -> Reviewed:
    return open_reader(folder).account_flags("abuse", account_id)[-1]


def shown(folder: Path, **wanted: Any) -> list[tuple[AccountId, str]]:
    rows = open_reader(folder).reviewed(Wanted(queue="abuse", **wanted), limit=1_000)
    return [(row.flag.account_id, row.state.value) for row in rows]


def execute(folder: Path, statement: str) -> Any:
    with dba_engine(folder).begin() as connection:
        return connection.execute(sa.text(statement))


def let_claims_run_out(folder: Path) -> None:
    execute(folder, "UPDATE claims SET until = 1 WHERE ended_at IS NULL")


def refused(desk: ReviewDesk, *decisions: Opinion) -> Refused:
    with pytest.raises(Refused) as refusal:
        desk.decide(decisions)
    return refusal.value


def test_the_best_free_flag_is_claimed_and_nobody_else_gets_it(store: Ledger, desk: ReviewDesk, store_folder: Path) -> None:
    released(store, store_folder, "first", 7, 8, 9)
    (first,) = desk.claim("abuse", by="ann", for_=HOUR)
    (second,) = desk.claim("abuse", by="bob", for_=HOUR)
    assert [first.flag.account_id, second.flag.account_id] == [7, 8]
    assert first.state is FlagState.CLAIMED
    assert first.claim is not None
    assert (first.claim.by, first.claim.until - first.claim.claimed_at) == ("ann", HOUR)
    assert shown(store_folder) == [(7, "claimed"), (8, "claimed"), (9, "open")]
    assert shown(store_folder, claimed_by="ann") == [(7, "claimed")]
    with pytest.raises(Refused, match=r"flag_taken.*ann"):
        desk.claim("abuse", by="bob", for_=HOUR, only=[7])
    assert desk.claim("abuse", by="bob", for_=HOUR, n=5)[0].flag.account_id == 9
    assert desk.claim("abuse", by="cid", for_=HOUR) == ()


def test_fifty_who_claim_at_once_get_fifty_different_flags(store: Ledger, store_folder: Path) -> None:
    n = 50
    released(store, store_folder, "first", *range(n))
    barrier = threading.Barrier(n)
    got: list[AccountId] = []
    failed: list[Exception] = []

    def claim(number: int) -> None:
        barrier.wait()
        try:
            got.extend(row.flag.account_id for row in open_desk(store_folder).claim("abuse", by=f"r{number}", for_=HOUR))
        except Exception as error:  # noqa: BLE001 (told below)
            failed.append(error)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert sorted(got) == list(range(n))
    by = {row.flag.account_id: row.claim.by for row in open_reader(store_folder).reviewed(Wanted(), limit=n) if row.claim}
    assert len(set(by.values())) == n


def test_a_claim_that_is_not_used_comes_back(store: Ledger, desk: ReviewDesk, store_folder: Path) -> None:
    released(store, store_folder, "first", 7)
    desk.claim("abuse", by="ann", for_=HOUR)
    let_claims_run_out(store_folder)
    assert shown(store_folder) == [(7, "open")]
    assert desk.claim("abuse", by="bob", for_=HOUR)[0].claim is not None
    assert shown(store_folder, claimed_by="bob") == [(7, "claimed")]
    assert refused(desk, says(7)).reason == "flag_taken"
    assert desk.return_claims("abuse", by="bob", only=[7]) == (7,)
    with pytest.raises(Refused, match="flag_absent"):
        desk.return_claims("abuse", by="bob", only=[7])
    assert shown(store_folder) == [(7, "open")]


def test_accounts_named_twice_and_ones_own_are_claimed_once_and_for_as_long_anew(
    store: Ledger, desk: ReviewDesk, store_folder: Path
) -> None:
    released(store, store_folder, "first", 7, 8)
    (before,) = desk.claim("abuse", by="ann", for_=HOUR, only=[7, 7])
    again = desk.claim("abuse", by="ann", for_=5 * HOUR, only=[8, 7])
    until = {row.flag.account_id: row.claim.until for row in again if row.claim is not None}
    assert before.claim is not None
    assert set(until) == {7, 8}
    assert until[7] == until[8] > before.claim.until + 3 * HOUR
    assert set(desk.return_claims("abuse", by="ann", only=[7, 7, 8])) == {7, 8}


def test_a_decision_closes_the_flag_and_says_by_whom_and_on_what(store: Ledger, desk: ReviewDesk, store_folder: Path) -> None:
    released(store, store_folder, "first", 7, 8)
    desk.claim("abuse", by="ann", for_=HOUR)
    assert desk.decide([says(7, evidence=1, why="a newsletter")]) == 1
    flag = held(store_folder, 7)
    assert (flag.state, flag.claim) == (FlagState.CLEARED, None)
    (said,) = flag.decided
    assert (said.by, said.evidence, said.why, said.number) == ("ann", 1, "a newsletter", 1)
    assert abs(said.decided_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert shown(store_folder) == [(8, "open")]
    assert shown(store_folder, states=(FlagState.CLEARED,)) == [(7, "cleared")]
    assert desk.decide([says(7, evidence=1)]) == 0, "the same person says the same"
    assert refused(desk, says(7, by="bob")).reason == "flag_decided"
    assert desk.decide([says(7, Disposition.CONFIRMED, by="bob", correct=True)]) == 1
    assert [one.state for one in held(store_folder, 7).decided] == [FlagState.CLEARED, FlagState.CONFIRMED]
    assert desk.decide([says(7, correct=True)]) == 1, "what she said before was corrected meanwhile"


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


def test_two_people_settle_a_flag_that_needs_them(store: Ledger, desk: ReviewDesk, store_folder: Path) -> None:
    released(store, store_folder, "first", 7, 8, second_reviewer=True)
    assert desk.decide([says(7), says(8)]) == 2
    assert shown(store_folder) == [(7, "awaiting"), (8, "awaiting")]
    assert refused(desk, says(7, Disposition.CONFIRMED)).reason == "second_reviewer"
    assert desk.claim("abuse", by="ann", for_=HOUR) == (), "she was the first"
    desk.claim("abuse", by="bob", for_=HOUR, n=2)
    assert desk.return_claims("abuse", by="bob", only=[8]) == (8,)
    assert shown(store_folder) == [(7, "claimed"), (8, "awaiting")], "it does not forget the first"
    assert desk.decide([says(7, by="bob"), says(8, Disposition.CONFIRMED, by="bob")]) == 2
    assert (held(store_folder, 7).state, held(store_folder, 8).state) == (FlagState.CLEARED, FlagState.INCONCLUSIVE)
    assert [one.disposition for one in held(store_folder, 8).decided] == [Disposition.CLEARED, Disposition.CONFIRMED]


def test_newer_evidence_may_ask_for_two_people(store: Ledger, desk: ReviewDesk, store_folder: Path) -> None:
    released(store, store_folder, "first", 7, 8)
    released(store, store_folder, "second", 7, second_reviewer=True)
    assert desk.decide([says(7, evidence=2), says(8)]) == 2
    assert [held(store_folder, account_id).state for account_id in (7, 8)] == [FlagState.AWAITING, FlagState.CLEARED]
    asks = execute(store_folder, "SELECT account_id, second_reviewer FROM review_flags ORDER BY account_id").all()
    assert [tuple(row) for row in asks] == [(7, 1), (8, 0)]


def test_rows_of_decisions_may_come_again_whatever_was_decided_and_released_since(
    store: Ledger, desk: ReviewDesk, store_folder: Path
) -> None:
    released(store, store_folder, "first", 7, second_reviewer=True)
    released(store, store_folder, "alone", 8)
    rows = [says(7), says(7, Disposition.CONFIRMED, by="bob"), says(8)]
    assert desk.decide(rows) == 3
    assert desk.decide(rows) == 0
    kept = released(store, store_folder, "kept", 7, 8)
    assert [one.kept for one in held(store_folder, 8).evidence] == [False, True], "it is shown"
    assert (held(store_folder, 8).version, held(store_folder, 8).newest.number) == (1, 1), "and is no new version"
    assert desk.decide(rows) == 0
    store.undo(kept.run_id, by="cid", why="wrong model")
    assert desk.decide([rows[2], says(8, evidence=1)]) == 0
    assert refused(desk, says(8, Disposition.CONFIRMED)).reason == "flag_decided"


def test_a_decision_is_no_older_than_its_flag_and_not_of_the_future(store: Ledger, desk: ReviewDesk, store_folder: Path) -> None:
    released(store, store_folder, "first", 7, 8)
    now = datetime.now(UTC)
    for wrong in (datetime(1970, 1, 21, tzinfo=UTC), now - HOUR, now + HOUR):
        refusal = refused(desk, says(7, decided_at=wrong))
        assert refusal.reason == "decision_time"
        assert "microseconds" in refusal.remedy
    said = [says(7, decided_at=now - timedelta(minutes=2)), says(8, decided_at=now + timedelta(minutes=2))]
    assert desk.decide(said) == 2, "clocks differ a little"


def test_a_second_opinion_that_ran_out_still_awaits_one(store: Ledger, desk: ReviewDesk, store_folder: Path) -> None:
    released(store, store_folder, "first", 7, 8, second_reviewer=True)
    desk.decide([says(7)])
    desk.claim("abuse", by="bob", for_=HOUR, n=2)
    let_claims_run_out(store_folder)
    assert shown(store_folder, states=(FlagState.AWAITING,)) == [(7, "awaiting")]
    assert shown(store_folder, states=(FlagState.OPEN,)) == [(8, "open")]
    assert desk.expire("abuse", by="cron", older_than=timedelta(0), apply=False) == 1
    assert desk.expire("abuse", by="cron", older_than=timedelta(0), apply=True) == 1
    assert (held(store_folder, 7).state, held(store_folder, 8).state) == (FlagState.AWAITING, FlagState.EXPIRED)


def test_a_late_first_opinion_brings_its_flag_back_unless_another_stands(
    store: Ledger, desk: ReviewDesk, store_folder: Path
) -> None:
    first = released(store, store_folder, "first", 7, 8, second_reviewer=True)
    assert desk.expire("abuse", by="cron", older_than=timedelta(0), apply=True) == 2
    later = released(store, store_folder, "later", 8, as_of=AS_OF + timedelta(days=1))
    assert desk.decide([says(7)]) == 1
    assert shown(store_folder) == [(8, "open"), (7, "awaiting")]
    assert desk.claim("abuse", by="bob", for_=HOUR, only=[7])[0].state is FlagState.CLAIMED
    assert refused(desk, says(8, run_id=first.run_id)).reason == "flag_changed"
    assert held(store_folder, 8).flag.run_id == later.run_id
    assert open_reader(store_folder).misstated(first.run_id) == 0


def test_of_a_long_file_it_is_told_which_rows_and_how_many_stand(
    store: Ledger, desk: ReviewDesk, store_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchscore.store.desk.OPINIONS_A_TRANSACTION", 2)
    released(store, store_folder, "first", 7, 8)
    with pytest.raises(Refused, match="the 2 before these stand") as refusal:
        desk.decide([says(7), says(8), says(424242)], name=lambda position: f"row {position + 5}")
    assert [problem.where for problem in refusal.value.problems] == ["row 7"]
    assert {state for _, state in shown(store_folder, states=(FlagState.CLEARED,))} == {"cleared"}


def test_of_a_file_of_decisions_all_stand_or_none_and_each_mistake_is_told(
    store: Ledger, desk: ReviewDesk, store_folder: Path
) -> None:
    released(store, store_folder, "first", 7, 8, 9)
    desk.claim("abuse", by="bob", for_=HOUR)
    refusal = refused(desk, says(8), says(7), says(424242), says(9, evidence=5))
    assert refusal.reason == "dispositions_invalid"
    assert [problem.where for problem in refusal.problems] == ["decision 2", "decision 3", "decision 4"]
    assert "424242" not in str(refusal)
    assert [position for position, _ in desk.check([says(8), says(424242)])] == [1]
    assert shown(store_folder) == [(7, "claimed"), (8, "open"), (9, "open")]


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


def test_every_change_is_an_event_and_numbers_have_no_gap(store: Ledger, desk: ReviewDesk, store_folder: Path) -> None:
    first = released(store, store_folder, "first", 7, 8, 9)
    desk.claim("abuse", by="ann", for_=HOUR)
    second = released(store, store_folder, "second", 7, 6, score=0.9)
    released(store, store_folder, "same", 7, score=0.9)
    desk.decide([says(7)])
    released(store, store_folder, "third", 7)
    store.undo(second.run_id, by="cid", why="wrong model")
    reader = open_reader(store_folder)
    told = reader.events(0, limit=100)
    assert [event.number for event in told] == list(range(1, len(told) + 1))
    assert [(event.act, event.account_id, event.state.value) for event in told] == [
        (Happened.OPENED, 7, "open"), (Happened.OPENED, 8, "open"), (Happened.OPENED, 9, "open"),
        (Happened.CLAIMED, 7, "claimed"),
        (Happened.EVIDENCE, 7, "overtaken"), (Happened.OPENED, 6, "open"),
        (Happened.UNMOVED, 7, "overtaken"),
        (Happened.DECIDED, 7, "cleared"),
        (Happened.KEPT, 7, "overtaken"),
        (Happened.WITHDRAWN, 6, "withdrawn"),
    ]  # fmt: skip
    assert told[0].run_id == first.run_id
    read: list[Any] = []
    while some := reader.events(read[-1].number if read else 0, limit=2):
        assert len(some) <= 2
        read += some
    assert tuple(read) == told
    rows = execute(
        store_folder, "SELECT number, act, account_id FROM review_events WHERE upto > 2 AND number > 2 ORDER BY number"
    )
    assert [tuple(row) for row in rows] == [(event.number, event.act.value, event.account_id) for event in told[2:]]


def test_no_event_of_a_run_is_told_before_it_is_released(
    store: Ledger, store_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from batchscore.store import flags

    monkeypatch.setattr(flags, "ROWS_A_TRANSACTION", 1)
    run, _ = store.open(make_plan(store_folder, name="slow"), owner="me")

    def slowly() -> Iterator[Any]:
        for number in (1, 2, 3):
            assert open_reader(store_folder).events(0, limit=10) == ()
            yield make_flag(number, run_id=run.run_id, rank=number)

    store.release(run, slowly())
    assert [event.number for event in open_reader(store_folder).events(0, limit=10)] == [1, 2, 3]


def test_more_flags_of_a_released_run_come_with_events_of_their_own(store: Ledger, desk: ReviewDesk, store_folder: Path) -> None:
    run = released(store, store_folder, "first", 1, 5)
    other = released(store, store_folder, "other", 3)
    desk.decide([says(5)])
    more = [make_flag(number, run_id=run.run_id, rank=number) for number in (1, 2, 3)]
    assert store.release_more(run.run_id, iter(more), by="cron") == ReleaseCount(n_flags=1, n_overtaken=1)
    assert store.release_more(run.run_id, iter(more), by="cron") == ReleaseCount(n_flags=0, n_overtaken=0)
    told = open_reader(store_folder).events(0, limit=100)
    assert [(event.number, event.act, event.account_id) for event in told] == [
        (1, Happened.OPENED, 1), (2, Happened.OPENED, 5), (3, Happened.OPENED, 3), (4, Happened.DECIDED, 5),
        (5, Happened.OPENED, 2), (6, Happened.UNMOVED, 3),
    ]  # fmt: skip
    assert execute(store_folder, "SELECT COUNT(*), COUNT(DISTINCT number) FROM review_events").one() == (6, 6)
    assert open_reader(store_folder).account_events("abuse", 2) == told[4:5]
    assert shown(store_folder) == [(1, "open"), (3, "open"), (2, "open")]
    store.undo(other.run_id, by="cid", why="wrong model")
    store.undo(run.run_id, by="cid", why="wrong model")
    with pytest.raises(Refused, match="nothing_to_release"):
        store.release_more(run.run_id, iter(more), by="cron")


def test_no_more_of_a_reserve_goes_on_a_day_than_its_pace(store: Ledger, desk: ReviewDesk, store_folder: Path) -> None:
    run = released(store, store_folder, "first", 1, 5)
    time.sleep(0.01)  # what comes later is told by the clock
    more = [make_flag(number, run_id=run.run_id, rank=10 - number) for number in (2, 3, 4)]
    assert store.release_more(run.run_id, iter(more), by="cron", per_day=2) == ReleaseCount(n_flags=2, n_overtaken=0)
    assert store.release_more(run.run_id, iter(more), by="ann", per_day=2) == ReleaseCount(n_flags=0, n_overtaken=0)
    assert {account for account, _ in shown(store_folder)} == {1, 5, 3, 4}, "the best ranks"
    assert store.release_more(run.run_id, iter(more), by="ann", per_day=3) == ReleaseCount(n_flags=1, n_overtaken=0)


def test_the_audit_trail_tells_of_each_verb(store: Ledger, desk: ReviewDesk, store_folder: Path) -> None:
    released(store, store_folder, "first", 7)
    desk.claim("abuse", by="ann", for_=HOUR)
    desk.return_claims("abuse", by="ann")
    desk.decide([says(7)])
    until = datetime.now(UTC) + 5 * HOUR
    asked = Suppression(scope="account", key="7", owner="trust team", why="a test", begins_at=AS_OF, until=until)
    desk.suppress("abuse", asked, by="ann")
    entries = [entry for entry, _ in open_reader(store_folder).audit()]
    assert [entry.act for entry in entries] == ["released", "claimed", "returned", "decided", "suppressed"]
    assert entries[4].account == entries[1].account, "an account is one, whatever is said of it"


def test_a_suppression_holds_until_it_ends_or_is_removed(store: Ledger, desk: ReviewDesk, store_folder: Path) -> None:
    until = datetime.now(UTC).replace(microsecond=0) + 5 * HOUR
    asked = Suppression(scope="domain", key="example.org", owner="trust team", why="a mailing", begins_at=AS_OF, until=until)
    made = desk.suppress("abuse", asked, by="ann")
    assert made.begins_at > datetime.now(UTC) - HOUR, "it never began in the past"
    assert open_reader(store_folder).suppressions("abuse") == (made,)
    assert open_reader(store_folder).suppressions("other") == ()
    assert desk.unsuppress("abuse", "domain", "example.org", by="bob") == 1
    (ended,) = open_reader(store_folder).suppressions("abuse")
    assert made.begins_at <= ended.until < until
    with pytest.raises(Refused, match="suppression_unknown"):
        desk.unsuppress("abuse", "domain", "example.org", by="bob")
    with pytest.raises(ValueError, match="ends after now"):
        desk.suppress("abuse", asked.model_copy(update={"until": AS_OF}), by="ann")


def test_memory_speaks_of_the_evidence_that_was_decided_on(store: Ledger, desk: ReviewDesk, store_folder: Path) -> None:
    first = released(store, store_folder, "first", 7, 8)
    second = released(store, store_folder, "second", 7, score=0.9)
    desk.decide([says(7)])
    _, asking = store.open(make_plan(store_folder, name="asking"), owner="me")
    seven, eight = store.reader().past_flags("abuse", but_not_of=asking)
    assert (seven.state, seven.run_id, seven.score, seven.n_evidence) == (FlagState.CLEARED, second.run_id, 0.9, 2)
    assert (eight.state, eight.run_id, eight.score, eight.n_evidence) == (FlagState.OPEN, first.run_id, 0.75, 1)
    assert seven.reason_codes == ("mails",)
    assert seven.decided_at is not None
    assert eight.decided_at is None


def test_ids_of_text_are_claimed_and_decided_by_their_bytes(open_again: OpenStore, store_folder: Path) -> None:
    store = open_again("string")
    composed, decomposed = "\u00e9", "e\u0301"
    released(store, store_folder, "first", "a", "a ", "A", composed, decomposed)
    desk = open_desk(store_folder)
    assert len(desk.claim("abuse", by="ann", for_=HOUR, only=["a ", composed])) == 2
    assert desk.decide([says("a "), says(composed)]) == 2
    assert {account_id for account_id, _ in shown(store_folder)} == {"a", "A", decomposed}
    assert [event.account_id for event in open_reader(store_folder).events(5, limit=9)] == ["a ", composed] * 2


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


def test_labels_are_what_was_decided_page_by_page(
    store: Ledger, desk: ReviewDesk, store_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reviewed, "LABELS_A_PAGE", 2)
    released(store, store_folder, "first", 7, 8, 9, 10)
    words = [Disposition.CONFIRMED, Disposition.CLEARED, Disposition.INCONCLUSIVE, Disposition.CLEARED]
    desk.decide([says(account_id, word) for account_id, word in zip((7, 8, 9, 10), words, strict=True)])
    desk.decide([says(10, Disposition.CONFIRMED, by="bob", correct=True)])
    told = [(account_id, bad) for account_id, bad, _ in open_reader(store_folder).decided_labels("abuse")]
    assert told == [(7, True), (8, False), (10, False), (10, True)]
    desk.decide([says(8, Disposition.INCONCLUSIVE, by="bob", correct=True)])
    told = [(account_id, bad) for account_id, bad, _ in open_reader(store_folder).decided_labels("abuse")]
    assert told == [(7, True), (10, False), (10, True)], "nobody knows of 8 any more"
    assert list(open_reader(store_folder).decided_labels("other")) == []


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
