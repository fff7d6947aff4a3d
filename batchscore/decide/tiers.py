"""What tiers and campaign of a policy mean for each candidate: thresholds, budgets used up, who shares a campaign. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batchscore.keys import positions
from batchscore.policy import Policy, Tier

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """Of n candidates, in order.

    ``thresholds``: float64 (n,). ``purses``: of each column with tiers int64 (n,): whose budget is used, -1 for none.
    ``budgets``: what each purse holds. ``campaigns``: int64 (n,), equal for one campaign, -1 for none. ``second``: bool (n,).
    ``floors``: how many places of the budget each tier with a floor keeps; ``floor_of``: int64 (n,), whose floor, -1 for none.
    """

    thresholds: npt.NDArray[np.float64]
    purses: tuple[Codes, ...]
    budgets: tuple[int, ...]
    campaigns: Codes
    second: npt.NDArray[np.bool_]
    floors: tuple[int, ...]
    floor_of: Codes


def lowest_threshold(policy: Policy) -> float:
    """No account below it is flagged by its score; minus infinity where a budget alone is the bound."""
    base = -np.inf if policy.threshold is None else policy.threshold
    return min([base, *(tier.threshold for tier in policy.tiers if tier.threshold is not None)])


def rules_of(policy: Policy, candidates: pa.Table) -> Rules:
    """The rules for candidates, which have the columns that the policy's tiers and campaign name."""
    n = len(candidates)
    highest = np.full(n, -np.inf)
    has_own = np.zeros(n, np.bool_)
    second = np.zeros(n, np.bool_)
    purses: list[Codes] = []
    budgets: list[int] = []
    floors: list[int] = []
    floor_of = np.full(n, -1, np.int64)
    for column in dict.fromkeys(tier.by for tier in policy.tiers):
        codes, names = encoded(candidates, column)
        tiers = [tier for tier in policy.tiers if tier.by == column]
        at = _tier_of_names(tiers, names.to_pylist())
        purse_of_name = np.full(len(names) + 1, -1, np.int64)  # the last is of null
        for number, tier in enumerate(tiers):
            inside = np.append(at == number, False)[codes]
            if tier.threshold is not None:
                highest[inside] = np.maximum(highest[inside], tier.threshold)
                has_own |= inside
            second |= inside & tier.second_reviewer
            if tier.floor is not None:
                floor_of[inside] = len(floors)
                floors.append(tier.floor)
            if tier.budget is not None:
                members = np.flatnonzero(at == number)
                each = np.arange(len(members)) if not tier.values else np.zeros(len(members), np.int64)
                purse_of_name[members] = len(budgets) + each
                budgets += [tier.budget] * (int(each.max(initial=-1)) + 1)
        purses.append(purse_of_name[codes])
    base = -np.inf if policy.threshold is None else policy.threshold
    campaigns = np.full(n, -1, np.int64)
    if policy.campaign is not None:
        campaigns, _ = encoded(candidates, policy.campaign.by)
    return Rules(
        thresholds=np.where(has_own, highest, base),
        purses=tuple(purses),
        budgets=tuple(budgets),
        campaigns=campaigns,
        second=second,
        floors=tuple(floors),
        floor_of=floor_of,
    )


def encoded(candidates: pa.Table, column: str) -> tuple[Codes, pa.Array]:
    """The column as numbers of its values (-1: null), and the values in order of name: the same for any order of candidates."""
    if column not in candidates.column_names:
        return np.full(len(candidates), -1, np.int64), pa.array([], pa.string())
    names = candidates[column].unique().drop_null().sort()
    return positions(candidates[column].combine_chunks(), names), names


def _tier_of_names(tiers: Sequence[Tier], names: Sequence[str]) -> Codes:
    """The number of the tier that each value is in: the first that names it, else the first without names; -1: none."""
    named: dict[str, int] = {}
    for number, tier in enumerate(tiers):
        for value in tier.values:
            named.setdefault(value, number)
    rest = next((number for number, tier in enumerate(tiers) if not tier.values), -1)
    return np.array([named.get(name, rest) for name in names], np.int64)
