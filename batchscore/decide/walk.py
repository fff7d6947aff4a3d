"""The walk: candidates from the best down, each flagged, kept in reserve, withheld or passed by, until the budget is used. Pure.

One flag uses up one of the budget, and of each tier's that it is in. Flags of one campaign use up one for every ``cap`` of them,
of each purse by itself: a member whose campaign was paid for by another tier pays into its own, and an empty one has no riders.
Whoever is withheld uses up nothing. The walk stops where one more would be needed and none is left: what is below competes for
nothing, also where it would cost nothing, and the best of it stay in reserve.

A tier's budget holds for flags and reserve together, so letting the reserve go never passes it. Whoever does not fit is *capped*:
kept from the reviewers as by memory, and in no reserve.

A tier's *floor* keeps so many places of the budget for it: its best use those up first, wherever they stand, and everybody else
competes for the rest. Places that it cannot fill are nobody's loss: the walk is done again without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from batchscore.decide.tiers import Rules


class Standing(IntEnum):
    """What becomes of a candidate."""

    PASSED = 0  # below its threshold, or beyond the reserve
    FLAG = 1
    RESERVE = 2
    WITHHELD = 3
    CAPPED = 4  # above the line, and the budget of a tier is used up


class Purses:
    """What is left of each tier's budget."""

    def __init__(self, rules: Rules, cap: int) -> None:
        self._left = list(rules.budgets)
        self._of = [column.tolist() for column in rules.purses]
        self._campaigns: list[int] = rules.campaigns.tolist()
        self._members: dict[tuple[int, int], int] = {}
        self._cap = cap

    def take(self, place: int) -> bool:
        """Pay for a candidate from all purses that it is in; False, and nothing is paid, where one of them is empty."""
        campaign = self._campaigns[place]
        mine: list[int] = []
        paying: list[int] = []
        for column in self._of:
            purse = column[place]
            if purse < 0:
                continue
            if campaign < 0 or self._members.get((purse, campaign), 0) % self._cap == 0:
                if not self._left[purse]:
                    return False
                paying.append(purse)
            mine.append(purse)
        for purse in paying:
            self._left[purse] -= 1
        if campaign >= 0:
            for purse in mine:
                self._members[purse, campaign] = self._members.get((purse, campaign), 0) + 1
        return True


@dataclass(frozen=True, kw_only=True, slots=True)
class Walked:
    """``standings``: `Standing`, int8 (n,). ``purses``: after it. ``is_over``: more candidates below would change nothing."""

    standings: npt.NDArray[np.int8]
    purses: Purses
    is_over: bool


def walk(
    scores: npt.NDArray[np.float64],
    rules: Rules,
    withheld: npt.NDArray[np.bool_],
    *,
    budget: int | None,
    cap: int,
    reserve: int,
) -> Walked:
    """Walk candidates in their order.

    Args:
        scores: float64 (n,), falling.
        rules: Of the same n, and perhaps of more after them.
        withheld: Whom memory withholds, bool (n,).
        budget: None: without bound.
        cap: Flags of a campaign that use up one of the budget.
        reserve: How many are kept at most.
    """
    over, floors = None, list(rules.floors)
    while True:
        found, unfilled = _walked(_Candidates(scores, rules, withheld, budget, cap, reserve), floors)
        over = found.is_over if over is None else over
        if not any(unfilled):
            return replace(found, is_over=over)
        floors = [floor - n for floor, n in zip(floors, unfilled, strict=True)]


class _Candidates(NamedTuple):
    scores: npt.NDArray[np.float64]
    rules: Rules
    withheld: npt.NDArray[np.bool_]
    budget: int | None
    cap: int
    reserve: int


def _walked(asked: _Candidates, floors: Sequence[int]) -> tuple[Walked, Sequence[int]]:
    """One walk with those floors; and of each how many of its places nobody took although the budget holds them.

    Only those whom memory does not withhold are walked one by one. The others change nothing, and of them it is enough to know
    where the budget was full, and each floor.
    """
    n = len(asked.scores)
    rules, reserve = asked.rules, asked.reserve
    is_above = asked.scores >= rules.thresholds[:n]
    standings = np.zeros(n, np.int8)
    left, in_reserve, is_full = (n if asked.budget is None else asked.budget), 0, asked.budget == 0
    purses = Purses(rules, asked.cap)
    members: dict[int, int] = {}
    campaigns, floor_of = rules.campaigns.tolist(), rules.floor_of.tolist()
    owed = [*floors, 0]  # the last is of those in no floor
    n_owed = sum(owed)
    full_from = 0 if is_full else n
    filled_from = [n if floor and left else 0 for floor in owed]
    for place in np.flatnonzero(is_above & ~asked.withheld).tolist():
        if is_full and in_reserve >= reserve and not (n_owed and left):
            break
        has_place = bool(left and owed[floor_of[place]])
        campaign = campaigns[place]
        costs = campaign < 0 or members.get(campaign, 0) % asked.cap == 0
        if not is_full and costs and not has_place and left <= n_owed:
            is_full, full_from = True, place
        if is_full and not has_place:
            if in_reserve < reserve and purses.take(place):
                standings[place] = Standing.RESERVE
                in_reserve += 1
            continue
        if not purses.take(place):
            standings[place] = Standing.CAPPED
            continue
        standings[place] = Standing.FLAG
        members[campaign] = members.get(campaign, 0) + 1
        left -= costs
        if costs and has_place:
            owed[floor_of[place]] -= 1
            n_owed -= 1
            if not owed[floor_of[place]]:
                filled_from[floor_of[place]] = place
        if costs and not left:
            filled_from = [min(first, place) for first in filled_from]
    competes_until = np.maximum(full_from, np.array(filled_from)[rules.floor_of[:n]])
    standings[is_above & asked.withheld & (np.arange(n) < competes_until)] = Standing.WITHHELD
    is_over = is_full and in_reserve >= reserve and not (n_owed and left)
    return Walked(standings=standings, purses=purses, is_over=is_over), owed[:-1] if left else []
