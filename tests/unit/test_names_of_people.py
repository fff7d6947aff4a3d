"""The name of whoever approves, decides, suppresses or asks: one rule, wherever it is given."""

from __future__ import annotations

import pytest

from batchscore.audit import BY_CHARS, mistake_of_name


@pytest.mark.parametrize("by", ["Ada", "ann@host", "Ada Lovelace", "Zoë", "x" * BY_CHARS])
def test_a_name_on_one_line_may_stand_in_the_trail(by: str) -> None:
    assert mistake_of_name(by, of="who approves") == ""


@pytest.mark.parametrize("by", ["", "  ", "x" * (BY_CHARS + 1), "Ada\nBob", "Ada\x1b[2J"])
def test_no_name_a_long_one_or_one_that_is_more_than_a_line_is_a_mistake_said_of_whoever_gave_it(by: str) -> None:
    assert mistake_of_name(by, of="a reviewer") == "the name of a reviewer has 1 to 255 characters, on one line"
