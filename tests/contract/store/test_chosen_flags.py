"""Which flags are asked for: by group, run, reason, claimant and state; each exactly, and all that are named together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchscore.desk import Wanted
from batchscore.flag import FlagState, Reason
from batchscore.store import Ledger, ReviewDesk, open_reader
from tests.contract.store.at_the_desk import HOUR, released, shown


def because(code: str, sentence: str = "12 mails in 7 days") -> tuple[Reason, ...]:
    return (Reason(code=code, sentence=sentence, contribution=0.5),)


@pytest.fixture
def second(store: Ledger, desk: ReviewDesk, store_folder: Path) -> str:
    """Two runs of two flags each; ann is at 7. The second run."""
    released(store, store_folder, "first", 7, 8, group="198.51.100.0/24", reasons=because("mails_7d"))
    run = released(store, store_folder, "second", 9, 10, group="%", reasons=because("mailsx7d", 'says "code":"mails_7d"'))
    desk.claim("abuse", by="ann", for_=HOUR, only=[7])
    return run.run_id


@pytest.mark.parametrize(
    ("wanted", "accounts"),
    [
        ({"group": "198.51.100.0/24"}, {7, 8}),
        ({"group": "%"}, {9, 10}),
        ({"reason": "mails_7d"}, {7, 8}),
        ({"reason": "mailsx7d"}, {9, 10}),
        ({"reason": "MAILS_7D"}, set()),
        ({"reason": "mails"}, set()),
        ({"claimed_by": "ann"}, {7}),
        ({"claimed_by": "bob"}, set()),
        ({"states": (FlagState.OPEN,), "reason": "mails_7d"}, {8}),
        ({"states": (FlagState.OPEN, FlagState.CLAIMED), "group": "198.51.100.0/24"}, {7, 8}),
        ({"claimed_by": "ann", "group": "%"}, set()),
    ],
)
def test_flags_are_those_that_all_that_is_named_holds_of(
    second: str, store_folder: Path, wanted: dict[str, Any], accounts: set[int]
) -> None:
    assert {account_id for account_id, _ in shown(store_folder, **wanted)} == accounts
    pages = open_reader(store_folder).all_reviewed(Wanted(queue="abuse", **wanted))
    assert {row.flag.account_id for page in pages for row in page} == accounts


def test_flags_of_a_run_are_its_own(second: str, store_folder: Path) -> None:
    assert {account_id for account_id, _ in shown(store_folder, run_id=second)} == {9, 10}
    assert shown(store_folder, run_id="r-00000000-1") == []


def test_a_claim_of_a_group_takes_no_other_flag(second: str, desk: ReviewDesk) -> None:
    assert [row.flag.account_id for row in desk.claim("abuse", by="bob", for_=HOUR, n=5, group="198.51.100.0/24")] == [8]
    assert desk.claim("abuse", by="bob", for_=HOUR, n=5, group="198.51.100.0/16") == ()


@pytest.mark.parametrize("unknown", [3, 2**63 - 1, 2**63, 2**64 - 1])
def test_of_an_account_that_no_flag_has_or_can_have_there_is_nothing(second: str, store_folder: Path, unknown: int) -> None:
    reader = open_reader(store_folder)
    assert reader.account_flags("abuse", unknown) == ()
    assert reader.account_events("abuse", unknown) == ()
    assert reader.flags_of(unknown) == ()
