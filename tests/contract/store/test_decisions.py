"""Decisions: what a person says of what they saw, one of two reviewers, files of them; and labels and memory made of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from batchscore.errors import Refused
from batchscore.flag import Disposition, FlagState
from batchscore.store import Ledger, ReviewDesk, open_reader, reviewed
from tests.contract.store.at_the_desk import HOUR, execute, held, let_claims_run_out, refused, released, says, shown
from tests.contract.store.conftest import AS_OF, make_plan
from tests.past_flags import past_flags


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


def test_the_page_of_a_flag_that_was_withdrawn_is_none_of_the_flag_that_stands_in_its_place(
    store: Ledger, desk: ReviewDesk, store_folder: Path
) -> None:
    first = released(store, store_folder, "first", 7, 8)
    heir = released(store, store_folder, "heir", 7, score=0.9)
    store.undo(first.run_id, by="cid", why="wrong model")
    again = released(store, store_folder, "again", 8)
    for account_id, run in ((7, heir), (8, again)):
        assert held(store_folder, account_id).version == 1
        refusal = refused(desk, says(account_id, evidence=1))
        assert (refusal.reason, f"was withdrawn; the one that this would be of is of run {run.run_id}" in refusal.what) == (
            "flag_changed",
            True,
        )
        assert refused(desk, says(account_id, evidence=1, run_id=first.run_id)).reason == "flag_changed"
        assert desk.decide([says(account_id, evidence=1, run_id=run.run_id)]) == 1
        assert desk.decide([says(account_id, evidence=1)]) == 0, "what was said already may come again"


def test_the_page_of_a_flag_that_was_decided_is_none_of_the_next_flag(
    store: Ledger, desk: ReviewDesk, store_folder: Path
) -> None:
    released(store, store_folder, "first", 7, 8)
    assert desk.decide([says(7, by="bob", evidence=1), says(8, by="bob", evidence=1)]) == 2
    again = released(store, store_folder, "again", 7, 8, as_of=AS_OF + timedelta(days=1))
    assert shown(store_folder) == [(7, "open"), (8, "open")]
    for late in (says(7, evidence=1), says(7, by="bob", evidence=1)):
        refusal = refused(desk, late)
        assert (refusal.reason, f"was cleared; the one that this would be of is of run {again.run_id}" in refusal.what) == (
            "flag_changed",
            True,
        )
    assert desk.decide([says(7, evidence=1, run_id=again.run_id)]) == 1
    desk.claim("abuse", by="ann", for_=HOUR)
    assert desk.decide([says(8, evidence=1)]) == 1, "whoever claimed it has its page"


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


def test_two_opinions_of_one_call_are_told_in_their_order(store: Ledger, desk: ReviewDesk, store_folder: Path) -> None:
    """Whoever follows the events ends at what the flag is, whatever the reviewers are called."""
    released(store, store_folder, "first", 7, 8, second_reviewer=True)
    first, second = [says(n, by="zoe") for n in (7, 8)], [says(n, by="ann") for n in (7, 8)]
    assert desk.decide([*first, *second]) == 4
    told = open_reader(store_folder).events(2, limit=10)
    assert [(event.account_id, event.who, event.state) for event in told] == [
        (7, "zoe", FlagState.AWAITING), (8, "zoe", FlagState.AWAITING),
        (7, "ann", FlagState.CLEARED), (8, "ann", FlagState.CLEARED),
    ]  # fmt: skip


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


def test_memory_speaks_of_the_evidence_that_was_decided_on(store: Ledger, desk: ReviewDesk, store_folder: Path) -> None:
    first = released(store, store_folder, "first", 7, 8)
    second = released(store, store_folder, "second", 7, score=0.9)
    desk.decide([says(7)])
    _, asking = store.open(make_plan(store_folder, name="asking"), owner="me")
    seven, eight = past_flags(store.reader(), "abuse", asking)
    assert (seven.state, seven.run_id, seven.score) == (FlagState.CLEARED, second.run_id, 0.9)
    assert (eight.state, eight.run_id, eight.score) == (FlagState.OPEN, first.run_id, 0.75)
    assert seven.reason_codes == ("mails",)
    assert seven.decided_at is not None
    assert eight.decided_at is None


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
