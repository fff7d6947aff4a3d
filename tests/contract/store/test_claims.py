"""Claims: one reviewer at a flag, whoever else reaches for it, until they give it back or their time runs out."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from batchscore.desk import Wanted
from batchscore.errors import Refused
from batchscore.flag import AccountId, FlagState
from batchscore.store import Ledger, ReviewDesk, open_desk, open_reader
from tests.contract.store.at_the_desk import HOUR, let_claims_run_out, refused, released, says, shown
from tests.contract.store.conftest import OpenStore


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


def test_ids_of_text_are_claimed_and_decided_by_their_bytes(open_again: OpenStore, store_folder: Path) -> None:
    store = open_again("string")
    composed, decomposed = "\u00e9", "e\u0301"
    released(store, store_folder, "first", "a", "a ", "A", composed, decomposed)
    desk = open_desk(store_folder)
    assert len(desk.claim("abuse", by="ann", for_=HOUR, only=["a ", composed])) == 2
    assert desk.decide([says("a "), says(composed)]) == 2
    assert {account_id for account_id, _ in shown(store_folder)} == {"a", "A", decomposed}
    assert [event.account_id for event in open_reader(store_folder).events(5, limit=9)] == ["a ", composed] * 2
