"""What a misspelt name may have been meant to be."""

from __future__ import annotations

import pytest

from batchscore.spelling import did_you_mean

NAMES = ("mails_7d", "Plan", "recipients")


@pytest.mark.parametrize(("written", "meant"), [("mail_7d", "mails_7d"), ("plan", "Plan"), ("RECIPIENT", "recipients")])
def test_the_nearest_name_is_told_as_it_is_written_whatever_its_case(written: str, meant: str) -> None:
    assert did_you_mean(written, NAMES, otherwise="remove it") == f"did you mean {meant!r}?"


def test_where_nothing_is_near_the_other_advice_is_given() -> None:
    assert did_you_mean("zzz", NAMES, otherwise="remove it") == "remove it"
    assert did_you_mean("plan", ()) == ""
