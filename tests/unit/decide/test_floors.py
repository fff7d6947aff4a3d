"""Floors: a tier's best have their places, exactly, whoever scores higher; and nobody loses a place that no one can fill."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from batchscore.decide import best, top
from batchscore.decide.memory import Moment
from batchscore.decide.top import Question, decide
from batchscore.policy import Campaign, Policy, Tier
from tests.past_flags import past_flag, remember

AS_OF = datetime(2026, 5, 20, tzinfo=UTC)
NOW = Moment(as_of=AS_OF, released=True)
Groups = dict[int, dict[str, str | None]]


def table(rows: list[tuple[int, float]]) -> pa.Table:
    scores = pa.array([score for _, score in rows], pa.float32())
    return pa.table({"account_id": pa.array([account for account, _ in rows], pa.uint64()), "score": scores, "margin": scores})


def known_groups(held: Groups) -> Any:
    def read(_: datetime, accounts: pa.Array) -> pa.Table:
        ids = accounts.to_pylist()
        columns = {name: pa.array([held[account][name] for account in ids], pa.string()) for name in ("country", "network")}
        return pa.table({"account_id": accounts, **columns})

    return read


def standings(policy: Policy, parts: list[pa.Table], held: Groups, is_open: set[int], slack: int = 1) -> dict[str, list[int]]:
    memory = remember(
        [past_flag(account, datetime(2026, 1, 1, tzinfo=UTC), None) for account in sorted(is_open)], (), pa.uint64()
    )
    asked = Question(policy=policy, memory=memory, scores=lambda _: iter(parts), groups=known_groups(held))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(best, "MIN_WAITING", 3)
        patch.setattr(top, "SLACK", slack)
        found = decide(asked, NOW).table.to_pylist()
    return {one: [row["account_id"] for row in found if row["standing"] == one] for one in ("flag", "reserve", "withheld")}


def expected(policy: Policy, scored: dict[int, float], held: Groups, is_open: set[int]) -> dict[str, list[int]]:
    """In plain words: the best of each tier up to its floor, then the best of all the others up to the budget.

    Withheld is whose flag stands, or whose tier is used up, and who competed: above the first who found no place among the
    others, or above the last of its own tier's floor.
    """
    assert policy.threshold is not None
    assert policy.budget is not None
    budget = max(0, policy.budget - (len(is_open) if policy.less_open else 0))
    in_order = sorted((one for one in scored if scored[one] >= policy.threshold), key=lambda one: (-scored[one], one))
    eligible: list[int] = []
    of_tier: dict[str, list[int]] = {}
    for account in in_order:
        tier = next((tier for tier in policy.tiers if held[account]["country"] in tier.values), None)
        mine = of_tier.setdefault(str(held[account]["country"]), [])
        if account not in is_open and (tier is None or tier.budget is None or len(mine) < tier.budget):
            mine.append(account)
            eligible.append(account)
    floors = {tier.values[0]: tier.floor or 0 for tier in policy.tiers}
    best_of_floors = {account for country, floor in floors.items() for account in of_tier.get(country, [])[:floor]}
    kept = [account for account in eligible if account in best_of_floors][:budget]
    others = [account for account in eligible if account not in kept][: budget - len(kept)]
    flags = [account for account in eligible if account in kept or account in others]

    place = {account: number for number, account in enumerate(in_order)}
    n_others = budget - len(kept)
    need_one = [one for one in in_order if one not in is_open and one not in kept]
    found_none = (place[one] for one in need_one if sum(place[other] < place[one] for other in others) == n_others)
    line = next(found_none, len(in_order)) if budget else 0

    def competes_until(country: str) -> int:
        mine = [one for one in kept if held[one]["country"] == country]
        is_short = len(kept) == budget and len(mine) < floors.get(country, 0)
        return max([line, *(place[one] for one in (kept if is_short else mine))])  # short: until the budget is used up

    withheld = [
        one
        for one in in_order
        if (one in is_open or one not in eligible) and place[one] < competes_until(str(held[one]["country"]))
    ]
    return {
        "flag": flags,
        "reserve": [account for account in eligible if account not in flags][: policy.reserve],
        "withheld": withheld,
    }


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_the_selection_is_the_best_of_each_floor_and_the_best_of_the_rest(data: st.DataObject) -> None:
    scored = data.draw(st.dictionaries(st.integers(0, 60), st.sampled_from([0.0, 0.25, 0.5, 0.5, 0.75, 1.0]), max_size=40))
    held: Groups = {one: {"country": data.draw(st.none() | st.sampled_from("abcd")), "network": None} for one in scored}
    budget = data.draw(st.integers(4, 14))
    tiers = []
    left = budget
    for country in data.draw(st.lists(st.sampled_from("abc"), unique=True, max_size=3)):
        floor = data.draw(st.none() | st.integers(1, 4))
        if floor is not None and floor > left:
            continue
        left -= floor or 0
        most = data.draw(st.none() | st.integers(floor or 0, 6))
        if floor is not None or most is not None:
            tiers.append(Tier(by="country", values=(country,), floor=floor, budget=most))
    policy = Policy(
        threshold=data.draw(st.sampled_from([0.0, 0.25, 0.5])),
        budget=budget,
        reserve=data.draw(st.sampled_from([0, 3, 50])),
        less_open=data.draw(st.booleans()),
        tiers=tuple(tiers),
    )
    is_open = set(data.draw(st.lists(st.sampled_from(sorted(scored)), max_size=8))) if scored else set()
    order = data.draw(st.permutations(sorted(scored)))
    edges = [0, *sorted(data.draw(st.lists(st.integers(0, len(order)), max_size=4))), len(order)]
    parts = [table([(account, scored[account]) for account in order[low:high]]) for low, high in pairwise(edges)]
    assert standings(policy, parts, held, is_open) == expected(policy, scored, held, is_open)


@pytest.mark.parametrize(
    ("in_order", "is_open", "less_open", "withheld"),
    [
        ("xxxaaa", {4}, False, [4]),  # its tier's floor is not filled yet, though nobody else finds a place
        ("xxxabb", {4}, False, [4]),
        ("xxxaab", {4}, False, []),  # it is
        ("xaaaaa", {1, 4, 5}, True, [1]),  # three stand, one place is left: it is used up before the floor of two is filled
    ],
)
def test_whose_flag_stands_is_withheld_while_a_place_is_kept_for_its_tier(
    in_order: str, is_open: set[int], withheld: list[int], *, less_open: bool
) -> None:
    floors = {"a": 2, "b": 1} if "b" not in in_order else {"a": 1, "b": 1}
    tiers = tuple(Tier(by="country", values=(country,), floor=floor) for country, floor in floors.items())
    policy = Policy(threshold=0.5, budget=4, less_open=less_open, tiers=tiers)
    held: Groups = {one: {"country": country, "network": None} for one, country in enumerate(in_order)}
    scored = {one: 0.9 - one / 100 for one in held}
    found = standings(policy, [table(list(scored.items()))], held, is_open)
    assert found == expected(policy, scored, held, is_open)
    assert found["withheld"] == withheld


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_with_campaigns_too_the_best_few_say_what_a_sort_of_everything_says(data: st.DataObject) -> None:
    scored = data.draw(st.dictionaries(st.integers(0, 60), st.sampled_from([0.25, 0.5, 0.75, 1.0]), max_size=40))
    held: Groups = {
        one: {"country": data.draw(st.sampled_from("abc")), "network": data.draw(st.none() | st.sampled_from("xyz"))}
        for one in scored
    }
    policy = Policy(
        threshold=0.25,
        budget=data.draw(st.integers(5, 10)),
        reserve=data.draw(st.sampled_from([0, 3])),
        less_open=data.draw(st.booleans()),
        tiers=(Tier(by="country", values=("a",), floor=3, budget=4), Tier(by="country", values=("b",), floor=2)),
        campaign=Campaign(by="network", cap=data.draw(st.integers(1, 3))),
    )
    is_open = set(data.draw(st.lists(st.sampled_from(sorted(scored)), max_size=8))) if scored else set()
    whole = table(sorted(scored.items()))
    found = standings(policy, [whole.slice(0, 7), whole.slice(7)], held, is_open)
    assert found == standings(policy, [whole], held, is_open, slack=1_000)
    units = {(held[one]["network"] or one) for one in found["flag"]}
    cap = policy.campaign.cap if policy.campaign else 1
    sizes = [sum((held[one]["network"] or one) == unit for one in found["flag"]) for unit in units]
    assert sum(-(-size // cap) for size in sizes) <= max(0, (policy.budget or 0) - (len(is_open) if policy.less_open else 0))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"budget": 10, "threshold": 0.5, "floor": (6, 5)}, "the floors keep 11 places of a budget of 10 "),
        ({"budget": 10, "threshold": 0.5, "floor": (5, 5), "sample": 0.2}, "budget of 10, of which 2 are drawn"),
        ({"threshold": 0.5, "floor": (1,)}, "a floor is of a budget"),
        ({"budget": 10, "floor": (1,)}, "a floor without a threshold"),
    ],
)
def test_floors_that_cannot_be_kept_are_refused(more: dict[str, Any], says: str) -> None:
    floors = more.pop("floor")
    tiers = [{"by": "country", "values": ["abc"[place]], "floor": floor} for place, floor in enumerate(floors)]
    with pytest.raises(ValidationError, match=says):
        Policy.model_validate({**more, "tiers": tiers})


def test_a_floor_is_of_named_values_of_one_column_and_no_more_than_its_tiers_budget() -> None:
    with pytest.raises(ValidationError, match="values that are named"):
        Tier(by="country", floor=1)
    with pytest.raises(ValidationError, match="more than the tier's budget"):
        Tier(by="country", values=("a",), floor=2, budget=1)
    tiers = (Tier(by="country", values=("a",), floor=1), Tier(by="plan", values=("b",), floor=1))
    with pytest.raises(ValidationError, match="by one column"):
        Policy(budget=10, threshold=0.5, tiers=tiers)


def test_a_policy_without_floors_pins_what_it_pinned_before() -> None:
    tier = Tier(by="country", values=("a",), budget=3)
    assert "floor" not in Policy(budget=10, tiers=(tier,)).pinned()["tiers"][0]
    with_floor = Policy(budget=10, threshold=0.5, tiers=(tier.model_copy(update={"floor": 2}),))
    assert with_floor.pinned()["tiers"][0]["floor"] == 2
