"""Account ids on a terminal: one line each, and no two alike."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batchscore.observe.text import plain, shown_id


def test_an_ordinary_id_shows_as_it_is() -> None:
    assert [shown_id(each) for each in (7, "7", "a b", "jo\u00e3o", "o'neil")] == ["7", "7", "a b", "jo\u00e3o", "o'neil"]


def test_an_id_that_would_not_show_stands_in_quotes() -> None:
    assert [shown_id(each) for each in ("", " 7", "7 ", "7\n8")] == ["''", "' 7'", "'7 '", "'7\\n8'"]


@given(st.text(), st.text())
def test_every_id_is_one_printable_line_and_no_two_show_alike(one: str, other: str) -> None:
    assert shown_id(one).isprintable()
    assert plain(shown_id(one)) == shown_id(one)
    assert (shown_id(one) == shown_id(other)) == (one == other)
