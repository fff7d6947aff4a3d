"""Decide: the exact best K above the threshold, whatever the order and cut of the scores; and what memory blocks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.decide import best, top
from batchscore.decide.memory import Memory, Moment
from batchscore.decide.table import decision_schema, flags_in
from batchscore.decide.top import Question, decide, decide_dates
from batchscore.errors import RunFailed
from batchscore.policy import Policy
from tests.past_flags import PastFlag, past_flag, remember

AS_OF = datetime(2002, 8, 19, tzinfo=UTC)
DAY = timedelta(days=1)
NOW = Moment(as_of=AS_OF, released=True)


def table(ids: list[Any], scores: list[float | None], kind: pa.DataType | None = None) -> pa.Table:
    score = pa.array(scores, pa.float32())
    return pa.table({"account_id": pa.array(ids, kind or pa.uint64()), "score": score, "margin": score})


def asked(
    tables: Iterable[pa.Table], policy: Policy, flags: Iterable[PastFlag] = (), kind: pa.DataType | None = None
) -> Question:
    held = list(tables)
    return Question(policy=policy, memory=remember(flags, (), kind or pa.uint64()), scores=lambda _: iter(held))


def flagged(*tables: pa.Table, blocked: Iterable[Any] = (), kind: pa.DataType | None = None, **policy: Any) -> pa.Table:
    flags = [past_flag(account, AS_OF - DAY, None) for account in blocked]
    return flags_in(decide(asked(tables, Policy(**policy), flags, kind), NOW).table)


def selected(*tables: pa.Table, **given: Any) -> list[Any]:
    found: list[Any] = flagged(*tables, **given)["account_id"].to_pylist()
    return found


integers = st.integers(0, 2**64 - 1)
texts = st.text(min_size=1, max_size=4)
few = [0.0, 0.25, float(np.float32(0.1)), 0.5, float(np.nextafter(np.float32(0.5), np.float32(1))), 1.0]
few_scores = st.sampled_from([*few, float("nan")])


@settings(max_examples=100, deadline=None)
@given(data=st.data(), as_text=st.booleans(), waiting=st.sampled_from([1, 3, 65_536]))
def test_the_selection_equals_a_sort_of_everything(data: st.DataObject, *, as_text: bool, waiting: int) -> None:
    kind = pa.string() if as_text else pa.uint64()
    keys: st.SearchStrategy[Any] = texts if as_text else integers
    scored = data.draw(st.dictionaries(keys, few_scores | st.none() | st.floats(0, 1, width=32), max_size=40))
    budget = data.draw(st.none() | st.integers(0, 45))
    threshold = data.draw(st.floats(0, 1) | (st.sampled_from(few) if budget is None else st.none()))
    blocked: set[Any] = data.draw(st.sets(st.sampled_from(sorted(scored)), max_size=10)) if scored else set()
    accounts = data.draw(st.permutations(sorted(scored)))
    edges = [0, *sorted(data.draw(st.lists(st.integers(0, len(accounts)), max_size=4))), len(accounts)]
    parts = [
        table(accounts[low:high], [scored[account] for account in accounts[low:high]], kind) for low, high in pairwise(edges)
    ]
    expected = sorted(
        (-score, account.encode() if as_text else account)
        for account, score in scored.items()
        if score is not None and not math.isnan(score) and account not in blocked and (threshold is None or score >= threshold)
    )[:budget]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(best, "MIN_WAITING", waiting)
        patch.setattr(top, "SLACK", 1)
        found = flagged(*parts, blocked=sorted(blocked), kind=kind, threshold=threshold, budget=budget)
    assert [account.encode() if as_text else account for account in found["account_id"].to_pylist()] == [
        account for _, account in expected
    ]
    assert found["rank"].to_pylist() == list(range(1, len(expected) + 1))
    assert found["score"].to_pylist() == [-score for score, _ in expected]


def test_the_result_has_one_schema_even_of_nothing() -> None:
    for tables in ([], [table([], [])], [table([1], [0.9])], [table([1], [0.1])]):
        found = decide(asked(tables, Policy(threshold=0.5, budget=3)), NOW).table
        assert found.schema == decision_schema(pa.uint64())
    assert flagged(table([1], [0.9]), threshold=0.5)["as_of"].to_pylist() == [AS_OF]


def test_the_threshold_is_compared_without_rounding() -> None:
    at = float(np.float32(0.1))  # larger than 0.1 by 1.5e-9
    below = float(np.nextafter(np.float32(0.1), np.float32(0)))
    assert selected(table([1, 2], [at, below]), threshold=0.1) == [1]
    assert selected(table([1, 2], [at, below]), threshold=at) == [1]
    assert selected(table([1, 2], [at, below]), threshold=float(np.nextafter(at, 1))) == []


def test_a_missing_score_is_never_selected() -> None:
    assert selected(table([1, 2, 3], [float("nan"), None, 0.0]), budget=3) == [3]
    assert selected(table([1, 2, 3], [float("nan"), None, 0.0]), threshold=0.0) == [3]


def test_ties_go_to_the_lower_id_unsigned_or_by_bytes() -> None:
    assert selected(table([2**64 - 1, 2**63, 5, 2**53 + 1, 2**53], [0.5] * 5), budget=4) == [5, 2**53, 2**53 + 1, 2**63]
    words = ["é", "a", "Z", "10", "9", "\U0001f600", "\uffff"]
    found = selected(table(words, [0.5] * 7, pa.string()), budget=7, kind=pa.string())
    assert found == ["10", "9", "Z", "a", "é", "\uffff", "\U0001f600"]


def test_blocked_accounts_use_up_no_budget() -> None:
    assert selected(table([1, 2, 3], [0.9, 0.8, 0.7]), budget=2, blocked=[1]) == [2, 3]


def test_ids_of_another_kind_than_the_memorys_are_an_error() -> None:
    with pytest.raises(TypeError, match="account ids are string"):
        selected(table(["1"], [0.5], pa.string()), budget=1)


def test_an_account_that_comes_twice_stops_the_run() -> None:
    with pytest.raises(RunFailed, match="proof_failed"):
        selected(table([7], [0.5]), table([7], [0.6]), budget=5)


def test_memory_holds_the_budget_and_not_the_scores() -> None:
    import tracemalloc

    def many(n: int) -> Iterator[pa.Table]:
        random = np.random.default_rng(0)
        for number in range(n):
            scores = random.random(50_000, dtype=np.float32)
            ids = pa.array(np.arange(number * 50_000, (number + 1) * 50_000, dtype=np.uint64))
            yield pa.table({"account_id": ids, "score": scores, "margin": scores})

    def peak(n: int) -> int:
        before = pa.total_allocated_bytes()
        largest = 0

        def watched() -> Iterator[pa.Table]:
            nonlocal largest
            for scores in many(n):
                largest = max(largest, pa.total_allocated_bytes() - before)
                yield scores

        tracemalloc.start()
        decide(Question(policy=Policy(budget=1_000), memory=remember((), (), pa.uint64()), scores=lambda _: watched()), NOW)
        traced = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return largest + traced

    peak(2)
    assert peak(40) < 1.5 * peak(4)


def past(account_id: int, opened: int, closed: int | None) -> PastFlag:
    return past_flag(account_id, AS_OF + opened * DAY, None if closed is None else AS_OF + closed * DAY)


def test_a_flag_blocks_from_after_it_opened_until_it_closed() -> None:
    flags = [past(1, -5, None), past(2, -5, -1), past(3, -5, 0), past(4, 0, None), past(5, 1, 2), past(1, -9, -8)]
    memory = remember(flags, (), pa.uint64())
    assert Memory(memory, Moment(as_of=AS_OF, released=False)).open_accounts.to_pylist() == [1, 3]
    assert Memory(memory, Moment(as_of=AS_OF + DAY, released=False)).open_accounts.to_pylist() == [1, 4]
    assert Memory(memory, NOW).open_accounts.to_pylist() == [1, 4]


def test_no_past_flags_block_nobody_of_the_right_kind() -> None:
    assert Memory(remember([], (), pa.string()), NOW).open_accounts.type == pa.string()


def simulate(release: Any, flags: list[PastFlag], budget: int = 1) -> list[list[int]]:
    dates = [AS_OF + 2 * DAY, AS_OF, AS_OF + DAY]
    found = decide_dates(asked([table([1, 2, 3], [0.9, 0.8, 0.7])], Policy(budget=budget), flags), dates, release=release)
    return [flags_in(decided.table)["account_id"].to_pylist() for _, decided in found]


def test_an_account_flagged_on_a_simulated_date_stays_flagged_for_later_ones() -> None:
    assert simulate("none", []) == [[1], [2], [3]]
    assert simulate("none", [], budget=2) == [[1, 2], [3], []]


def test_the_released_date_sees_no_simulated_flag_but_all_real_ones_of_now() -> None:
    assert simulate("latest", []) == [[1], [2], [1]]
    assert simulate("latest", [past(1, 30, None), past(2, -30, 10)]) == [[1], [3], [2]]


def test_a_simulated_date_sees_real_flags_as_they_were_then() -> None:
    assert simulate("none", [past(1, -3, 1)]) == [[2], [3], [1]]


def test_dates_come_one_at_a_time_in_order_of_time() -> None:
    seen: list[datetime] = []

    def scores(as_of: datetime) -> list[pa.Table]:
        seen.append(as_of)
        return [table([1], [0.5])]

    question = Question(policy=Policy(budget=1), memory=remember([], (), pa.uint64()), scores=scores)
    dates = decide_dates(question, [AS_OF + DAY, AS_OF], release="none")
    assert next(dates)[1].table["as_of"].to_pylist() == [AS_OF]
    assert seen == [AS_OF]
