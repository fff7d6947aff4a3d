"""How a value shows itself: escaped, short, and the same facts in both forms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.shown import MAX_CHARS, MAX_ROWS, Showable, Shown, ShownTable, html_of, text_of
from tests.unit.report.test_page_of_a_report import HOSTILE, Seen


def test_hostile_text_is_text() -> None:
    shown = Shown(HOSTILE, [(HOSTILE, HOSTILE)], [ShownTable((HOSTILE,), [(HOSTILE,)])])
    html = html_of(shown)
    seen = Seen(html)
    assert set(seen.tags) <= {"div", "p", "b", "table", "tbody", "thead", "tr", "th", "td"}
    assert {name for name, _ in seen.attributes} <= {"style"}
    assert "<script>" in seen.text
    for said in (html, text_of(shown)):
        assert "\x1b" not in said
        assert "\u202e" not in said


@given(st.text(max_size=300), st.text(max_size=300))
def test_a_fact_is_one_short_line(name: str, value: str) -> None:
    lines = text_of(Shown("title", [(name, value)])).split("\n")
    assert len(lines) == 2
    assert len(lines[1]) <= 2 * MAX_CHARS + 320
    assert Seen(html_of(Shown(name, [(value, name)]))).open == []


def test_a_long_table_says_how_much_is_left() -> None:
    html = html_of(Shown("t", [], [ShownTable(("n",), [(str(n),) for n in range(MAX_ROWS + 5)])]))
    assert html.count("<tr>") == 1 + MAX_ROWS
    assert "5 more rows" in html


def test_a_value_must_say_what_it_shows() -> None:
    with pytest.raises(NotImplementedError):
        Showable().shown()
