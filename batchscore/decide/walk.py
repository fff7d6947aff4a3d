"""The walk: candidates from the best down, each flagged, kept in reserve, withheld or passed by, until the budget is used. Pure.

One flag uses up one of the budget, and of each tier's that it is in. Flags of one campaign use up one for every ``cap`` of them.
Whoever is withheld uses up nothing. The walk stops where one more would be needed and none is left: what is below competes for
nothing, also where it would cost nothing, and the best of it stay in reserve. So does whoever does not fit into a tier's budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from batchscore.decide.tiers import Rules


class Standing(IntEnum):
    """What becomes of a candidate."""

    PASSED = 0  # below its threshold, or beyond the reserve
    FLAG = 1
    RESERVE = 2
    WITHHELD = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Walked:
    """``standings``: `Standing`, int8 (n,). ``is_over``: more candidates below would change nothing."""

    standings: npt.NDArray[np.int8]
    is_over: bool


def walk(
    scores: npt.NDArray[np.float64], rules: Rules, withheld: Sequence[bool], *, budget: int | None, cap: int, reserve: int
) -> Walked:
    """Walk candidates in their order.

    Args:
        scores: float64 (n,), falling.
        rules: Of the same n.
        withheld: Whom memory withholds.
        budget: None: without bound.
        cap: Flags of a campaign that use up one of the budget.
        reserve: How many are kept at most.
    """
    n = len(scores)
    standings = np.zeros(n, np.int8)
    left, in_reserve, is_full = (n if budget is None else budget), 0, budget == 0
    of_tiers = list(rules.budgets)
    members: dict[int, int] = {}
    purses = [column.tolist() for column in rules.purses]
    campaigns = rules.campaigns.tolist()
    for place in np.flatnonzero(scores >= rules.thresholds).tolist():
        if is_full and in_reserve >= reserve:
            break
        if withheld[place]:
            standings[place] = Standing.PASSED if is_full else Standing.WITHHELD
            continue
        campaign = campaigns[place]
        costs = campaign < 0 or members.get(campaign, 0) % cap == 0
        is_full = is_full or (costs and left == 0)
        mine = [column[place] for column in purses if column[place] >= 0]
        if is_full or (costs and any(of_tiers[purse] == 0 for purse in mine)):
            if in_reserve < reserve:
                standings[place] = Standing.RESERVE
                in_reserve += 1
            continue
        standings[place] = Standing.FLAG
        members[campaign] = members.get(campaign, 0) + 1
        if costs:
            left -= 1
            for purse in mine:
                of_tiers[purse] -= 1
    return Walked(standings=standings, is_over=is_full and in_reserve >= reserve)
