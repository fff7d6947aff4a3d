"""Memory that is used again is never written while anything reads it, whatever was made of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from batchscore.sources import shared_page
from batchscore.sources.shared_page import PageReceiver, PageSender


@pytest.fixture
def hand_over() -> Callable[[pa.Table], tuple[pa.Table, bool]]:
    sender, receiver = PageSender(), PageReceiver()

    def handed(table: pa.Table) -> tuple[pa.Table, bool]:
        page, size, is_kept = sender.put(table, kept_is_free=receiver.kept_is_free)
        return receiver.take(page, size, is_kept=is_kept), is_kept

    return handed


HandOver = Callable[[pa.Table], tuple[pa.Table, bool]]


def numbers(first: int, n_rows: int = 1_000) -> pa.Table:
    return pa.table({"a": range(first, first + n_rows), "b": [f"text {first}", None] * (n_rows // 2)})


def n_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_table_comes_as_it_was_however_large_the_last_one(hand_over: HandOver) -> None:
    for n_rows in (1_000, 100, 50_000, 0, 60_000):
        table, is_kept = hand_over(numbers(n_rows, n_rows))
        assert is_kept, "nobody holds the last one"
        assert table.equals(numbers(n_rows, n_rows))
        table.validate(full=True)
        del table


@pytest.mark.parametrize(
    "made_of_it",
    [
        lambda table: table,
        lambda table: table["a"].slice(500, 1),
        lambda table: table["a"].chunk(0).to_numpy()[10:20],
        lambda table: table["a"].chunk(0).buffers()[1],
        lambda table: memoryview(table["a"].chunk(0).buffers()[1])[8:16],
    ],
    ids=["the table", "a slice", "an array of NumPy", "a buffer", "bytes of a buffer"],
)
def test_it_is_written_anew_once_nothing_is_left_of_it(made_of_it: Callable[[pa.Table], object], hand_over: HandOver) -> None:
    table, is_kept = hand_over(numbers(0))
    assert is_kept
    held: object = made_of_it(table)
    before = bytes(held) if isinstance(held, memoryview | pa.Buffer) else str(held)
    del table
    other, is_kept = hand_over(numbers(7_000))
    assert not is_kept
    assert other.equals(numbers(7_000))
    assert (bytes(held) if isinstance(held, memoryview | pa.Buffer) else str(held)) == before
    del held
    assert hand_over(numbers(9_000))[1], "free again"
    assert other.equals(numbers(7_000)), "which is in memory of its own"


def test_what_is_too_large_is_not_kept_and_no_descriptor_is_left(hand_over: HandOver, monkeypatch: pytest.MonkeyPatch) -> None:
    hand_over(numbers(0))
    n_before = n_descriptors()
    monkeypatch.setattr(shared_page, "MOST_KEPT_BYTES", 10_000)
    for _ in range(3):
        table, is_kept = hand_over(numbers(0))
        assert (table.equals(numbers(0)), is_kept) == (True, False)
        del table
    assert hand_over(numbers(0, 10))[1]
    assert n_descriptors() == n_before
