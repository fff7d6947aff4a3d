"""The comparison's page: whole in one file, escaped, without an account; and the interval of a share."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from batchscore.flag import FlagState
from batchscore.observe.text import plain
from batchscore.report.comparison import CodePair, Comparison, DatePair, Disagreement, Precision, Side, Why, code_pairs, wilson
from batchscore.report.comparison_page import MAX_DATES, comparison_page, headline
from tests.unit.report.test_page_of_a_report import HOSTILE, Seen

FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def made(text: str = "candidate", *, n_dates: int = 2, n_new: int = 3) -> Comparison:
    side = Side(run_id="r-12345678-1", spec=text, bundle=text, bundle_digest="0" * 64, made_now=True)
    codes = (CodePair(code=text, a=0.5, b=None), CodePair(code="quiet", a=None, b=0.25))
    sample = Disagreement(
        account_id=f"secret {text}", as_of=FIRST, kind="new", rank=1, codes=codes,
        score_a=None, score_b=0.5, margin_a=None, margin_b=0.0,
    )  # fmt: skip
    dates = [
        DatePair(
            as_of_a=FIRST + timedelta(days=day),
            as_of_b=FIRST + timedelta(days=day),
            budget=10,
            n_a=10,
            n_b=10,
            n_same=10 - n_new,
            n_new=n_new,
            n_dropped=n_new,
            n_moved=2,
            median_move=1.5,
        )
        for day in range(n_dates)
    ]
    why = (
        Why(kind="new", n=n_new, base_a=-1.0, base_b=None, codes=codes),
        Why(kind="dropped", n=0, base_a=None, base_b=None, codes=()),
    )
    precision = Precision.of([FlagState.CONFIRMED, FlagState.CLEARED, None])
    nobody = Precision.of([None])
    return Comparison(
        a=side, b=side, memory_of="r-12345678-1", dates=tuple(dates), why=why, sample=(sample,), notes=(text,),
        precision_a=precision, precision_b=nobody,
    )  # fmt: skip


def test_hostile_text_is_text_and_no_account_is_named() -> None:
    drawn = comparison_page(made(HOSTILE), plain=plain)
    seen = Seen(drawn)
    assert seen.open == []
    assert "script" not in seen.tags
    assert "secret" not in drawn
    assert "\x1b" not in drawn
    assert not [value for name, value in seen.attributes if name in {"src", "href", "onload"} or "//" in value]


def test_a_long_comparison_is_bounded_and_says_what_is_left() -> None:
    drawn = comparison_page(made(n_dates=400), plain=plain)
    assert len(drawn) < 60_000
    assert f"{400 - MAX_DATES} earlier" in drawn


@pytest.mark.parametrize(("n_new", "n_dates", "says"), [(3, 2, "6 of 20"), (0, 2, "same 20 accounts"), (0, 0, "nobody")])
def test_the_headline_says_how_much_work_changes(n_new: int, n_dates: int, says: str) -> None:
    assert says in headline(made(n_new=n_new, n_dates=n_dates))


@pytest.mark.parametrize(
    ("n_good", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662)],
)
def test_the_interval_is_wilsons(n_good: int, n: int, low: float, high: float) -> None:
    assert list(wilson(n_good, n)) == pytest.approx([low, high], abs=1e-4)


def test_codes_of_one_side_alone_are_compared_with_nothing() -> None:
    assert [pair.code for pair in code_pairs({"a": 1.0, "b": 0.1}, {"b": -0.2, "c": 2.0})] == ["c", "a", "b"]
    assert code_pairs(None, None) == ()
