"""Statements of a release stay below what a server accepts, and lose no row."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batchscore.store.inserting import STATEMENT_BYTES, bounded
from batchscore.store.rows import FlagOwn


def row(number: int, n_chars: int, n_others: int) -> FlagOwn:
    long, since = '"' * n_chars, '"' * n_others
    return FlagOwn(number, rank=number, score=0.5, margin=0.0, reasons=long, release_ordinal=1, group_key="", since=since)


@given(st.lists(st.integers(0, 300_000), max_size=40), st.integers(0, 1_279))
def test_statements_are_bounded_in_bytes_whatever_the_reasons_are(lengths: list[int], n_others: int) -> None:
    rows = [row(number, n_chars, n_others) for number, n_chars in enumerate(lengths)]
    parts = list(bounded(rows))
    assert [one for part in parts for one in part] == rows
    for part in parts:
        escaped = sum(2 * len(one.reasons.encode()) + 300 + 2 * n_others for one in part)
        assert escaped <= STATEMENT_BYTES or len(part) == 1
