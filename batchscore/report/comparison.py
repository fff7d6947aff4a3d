"""What two ways of scoring would put before reviewers, compared at equal budget: values, and the folding of counts. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from statistics import median
from typing import Final, Literal

from batchscore.flag import AccountId, FlagState
from batchscore.shown import Showable, Shown, ShownTable
from batchscore.values import Value

MAX_CODES: Final = 5  # of one disagreement: those that differ most
_Z: Final = 1.959963984540054  # of a two-sided interval of 95 %


class Side(Value):
    """One way: a run's scores by one of its bundles, or by a bundle that was tried on its frozen input (``made_now``)."""

    run_id: str
    spec: str
    bundle: str
    bundle_digest: str
    made_now: bool


class DatePair(Value):
    """One as-of of each side. ``budget``: how many accounts both may select; ``n_a``, ``n_b`` do.

    ``n_new``: selected by B alone; ``n_dropped``: by A alone; ``n_moved``: by both at other ranks, ``median_move`` places apart.
    """

    as_of_a: datetime
    as_of_b: datetime
    budget: int
    n_a: int
    n_b: int
    n_same: int
    n_new: int
    n_dropped: int
    n_moved: int
    median_move: float | None


class CodePair(Value):
    """What a reason code gave on average, in units of margin, by A and by B; None: that bundle has no such code."""

    code: str
    a: float | None
    b: float | None

    @property
    def difference(self) -> float:
        """B less A; an absent code gives nothing."""
        return (self.b or 0.0) - (self.a or 0.0)


class Why(Value):
    """Why one side alone selects accounts of one kind: average contributions of ``n`` of them, the largest difference first.

    The margins' averages are those sums with the bases: ``base_a`` and ``base_b``.
    """

    kind: Literal["new", "dropped"]
    n: int
    base_a: float | None
    base_b: float | None
    codes: tuple[CodePair, ...]


class Disagreement(Value):
    """An account that one side alone selects, at that ``rank`` of its own; scores and margins of both (None: none)."""

    account_id: AccountId
    as_of: datetime
    kind: Literal["new", "dropped"]
    rank: int
    score_a: float | None
    score_b: float | None
    margin_a: float | None
    margin_b: float | None
    codes: tuple[CodePair, ...]


class Precision(Value):
    """Of what a side selects, how much people confirmed. ``n_decided`` = confirmed + cleared; the interval is Wilson's, 95 %.

    Who was reviewed was mostly chosen by what flagged then: of the other side's selection few were, and not at random.
    """

    n_selected: int
    n_decided: int
    n_confirmed: int
    n_inconclusive: int
    precision: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, states: Iterable[FlagState | None]) -> Precision:
        """From what became of each account selected; None: nobody decided."""
        held = list(states)
        confirmed, cleared = held.count(FlagState.CONFIRMED), held.count(FlagState.CLEARED)
        n = confirmed + cleared
        low, high = wilson(confirmed, n) if n else (None, None)
        return cls(
            n_selected=len(held),
            n_decided=n,
            n_confirmed=confirmed,
            n_inconclusive=held.count(FlagState.INCONCLUSIVE),
            precision=confirmed / n if n else None,
            low=low,
            high=high,
        )


class Comparison(Showable, Value):
    """All of it. ``why`` speaks of all dates together; ``sample`` is drawn by a hash of the ids, so always the same."""

    a: Side
    b: Side
    memory_of: str
    dates: tuple[DatePair, ...]
    why: tuple[Why, ...]
    sample: tuple[Disagreement, ...]
    precision_a: Precision
    precision_b: Precision
    notes: tuple[str, ...]

    def shown(self) -> Shown:
        """The two sides, and the counts of each pair of dates."""
        sides = [(name, f"{side.bundle} on run {side.run_id}") for name, side in (("A", self.a), ("B", self.b))]
        facts = [*sides, *(("to know", note) for note in self.notes)]
        rows = [
            (f"{pair.as_of_b:%Y-%m-%d}", *map(str, (pair.budget, pair.n_same, pair.n_new, pair.n_dropped, pair.n_moved)))
            for pair in self.dates
        ]
        dates = ShownTable(("as of", "budget", "both", "new in B", "dropped from A", "at another rank"), rows)
        why = [
            ShownTable(
                (f"{why.kind}, on average of {why.n:,}", "B less A"), [(c.code, f"{c.difference:+.3f}") for c in why.codes]
            )
            for why in self.why
        ]
        return Shown("comparison at equal budget", facts, (dates, *why))


def wilson(n_good: int, n: int) -> tuple[float, float]:
    """The 95 % interval of Wilson (1927) of a share, ``n`` above 0."""
    share, z2 = n_good / n, _Z * _Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def date_pair(as_ofs: tuple[datetime, datetime], budget: int, a: Mapping[AccountId, int], b: Mapping[AccountId, int]) -> DatePair:
    """``a`` and ``b``: account → rank in each side's selection."""
    moves = [abs(rank - b[account]) for account, rank in a.items() if account in b]
    moved = [move for move in moves if move]
    return DatePair(
        as_of_a=as_ofs[0],
        as_of_b=as_ofs[1],
        budget=budget,
        n_a=len(a),
        n_b=len(b),
        n_same=len(moves),
        n_new=len(b) - len(moves),
        n_dropped=len(a) - len(moves),
        n_moved=len(moved),
        median_move=float(median(moved)) if moved else None,
    )


def code_pairs(a: Mapping[str, float] | None, b: Mapping[str, float] | None) -> tuple[CodePair, ...]:
    """The codes of both sides, the largest difference first, then by name. None: the side has no contributions of it."""
    names = sorted({*(a or {}), *(b or {})})
    pairs = [CodePair(code=name, a=(a or {}).get(name), b=(b or {}).get(name)) for name in names]
    return tuple(sorted(pairs, key=lambda pair: -abs(pair.difference)))


def averages(rows: Sequence[Mapping[str, float]]) -> dict[str, float] | None:
    """The average of each code over accounts that all have the same codes; None of none."""
    return {name: math.fsum(row[name] for row in rows) / len(rows) for name in rows[0]} if rows else None
