"""The policy: which scores become flags, for one review queue. Only values; `decide` says what they do to scores.

No part of it is in the address of a score: whatever changes here, nothing is scored again.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, model_validator

from batchscore.values import NAME, ColumnName, Count, Duration, Number, Probability, Value

MOST_FLAGS: Final = 10_000_000
LEAST_SAMPLE: Final = 2  # accounts: of one alone nothing can be said


def n_sampled(sample: float | None, budget: int | None) -> int:
    """How many of a budget that share is, as it is written: 0.29 of 100 is 29. None where it is fewer than two."""
    if sample is None or budget is None:
        return 0
    n = int(Decimal(str(sample)) * budget)
    return n if n >= LEAST_SAMPLE else 0


def _group(value: Any) -> Any:
    """Groups are kept as text: what YAML reads as an integer or a bool is written as Arrow writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else value


Group = Annotated[str, BeforeValidator(_group), Field(min_length=1, max_length=255)]


class Tier(Value):
    """Rules of their own for the accounts whose column ``by`` holds one of ``values``.

    Without ``values``: for every other value of the column that no tier before it names, each by itself. ``threshold`` stands in
    the policy's place; ``budget`` is the most of the budget that they may use, together, or each value where none is named,
    by flags, reserve and sample; 0 is none, whatever campaign they are in. ``floor`` is the least of it that is kept for them: so
    many of their best are flagged if they reach the threshold, however many others score higher. An account in several tiers must
    reach the highest of their thresholds and fits where it fits into all their budgets; it needs a second reviewer where one
    of them says so. An account whose column is null is in no tier of it.
    """

    by: ColumnName
    values: tuple[Group, ...] = ()
    threshold: Probability | None = None
    budget: Annotated[Count, Field(ge=0, le=MOST_FLAGS)] | None = None
    floor: Annotated[Count, Field(ge=1, le=MOST_FLAGS)] | None = None
    second_reviewer: bool = False

    @model_validator(mode="after")
    def _says_something(self) -> Tier:
        if self.threshold is None and self.budget is None and self.floor is None and not self.second_reviewer:
            msg = "a tier that changes nothing → give it a threshold, a budget, a floor, or second_reviewer: true"
            raise ValueError(msg)
        if self.floor is not None and not self.values:
            msg = "a floor is of values that are named: how many there are else, nobody knows beforehand → add values"
            raise ValueError(msg)
        if self.floor is not None and self.budget is not None and self.floor > self.budget:
            msg = f"a floor of {self.floor:,} is more than the tier's budget of {self.budget:,} → lower it, or raise the budget"
            raise ValueError(msg)
        return self


class Campaign(Value):
    """Flags with one value in the column ``by`` are shown together, and ``cap`` of them use up one of the budget."""

    by: ColumnName
    cap: Annotated[Count, Field(ge=1, le=1_000)] = 20


class CoolDown(Value):
    """For how long after a decision an account is not flagged again, by what was decided."""

    cleared: Duration = timedelta(0)
    confirmed: Duration = timedelta(0)
    inconclusive: Duration = timedelta(0)


class Again(Value):
    """What must have moved since an account was cleared before it is flagged again: any one of these.

    ``score``: risen by so much. ``reasons``: so many reasons towards abuse that it was not flagged for then. ``counts``: a
    feature risen by so much, by name. The two last take its features of then and now, which are made of the same rollups.
    """

    score: Annotated[Probability, Field(gt=0)] | None = None
    reasons: Annotated[Count, Field(ge=1, le=100)] | None = None
    counts: dict[ColumnName, Annotated[Number, Field(gt=0)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _asks_for_something(self) -> Again:
        if self.score is None and self.reasons is None and not self.counts:
            msg = "nothing is asked for → name a score, reasons or counts, such as again: {score: 0.1, reasons: 1}"
            raise ValueError(msg)
        return self

    @property
    def looks_closer(self) -> bool:
        """Whether scores do not suffice to tell."""
        return self.reasons is not None or bool(self.counts)


class MoreEvidence(Value):
    """What must have moved since the newest evidence on a flag that stands before a run adds to it: any one of these.

    ``score``: risen or fallen by so much. ``reasons``: so many reasons towards abuse that the newest evidence does not give.
    """

    score: Annotated[Probability, Field(gt=0)] = 0.05
    reasons: Annotated[Count, Field(ge=1, le=100)] = 1


class Guard(Value):
    """When a run is held before it releases: flags unlike those of the last runs of the spec.

    ``factor``: flags in all, by first reason, by segment and by domain may be so many times fewer or more than usual; what is
    usually below ``least``, and is no more now, is left alone. ``most``: flags of one run, whatever is usual. ``psi``: drift of
    the scores, against the last run and the bundle's reference. ``missing``: share of partitions in which a feature is missing
    more often than when its bundle was packed.
    """

    factor: Annotated[Number, Field(gt=1, le=1_000)] = 3.0
    least: Annotated[Count, Field(ge=1, le=MOST_FLAGS)] = 20
    most: Annotated[Count, Field(ge=1, le=MOST_FLAGS)] | None = None
    psi: Annotated[Number, Field(gt=0, le=100)] | None = None
    missing: Probability | None = None


class Policy(Value):
    """Which scores become flags: at or above ``threshold``, at most ``budget`` per as-of, for one review queue.

    ``less_open``: the budget is less by the flags that stand in the queue already. ``reserve``: so many more, in order of rank,
    are kept for `batchscore release`, which lets ``per_day`` of them go within a day. ``sample``: a share of the budget that is
    drawn at random among all that is not flagged. ``domain``: the column by which domains are suppressed and guarded.
    """

    queue: str = Field(default="review", pattern=NAME)
    threshold: Probability | None = None
    budget: Annotated[Count, Field(ge=0, le=MOST_FLAGS)] | None = None
    less_open: bool = False
    reserve: Annotated[Count, Field(ge=0, le=1_000_000)] = 0
    per_day: Annotated[Count, Field(ge=1, le=MOST_FLAGS)] | None = None
    sample: Annotated[Probability, Field(gt=0, lt=1)] | None = None
    tiers: tuple[Tier, ...] = Field(default=(), max_length=32)
    campaign: Campaign | None = None
    domain: ColumnName | None = None
    cool_down: CoolDown = CoolDown()
    again: Again | None = None
    more_evidence: MoreEvidence = MoreEvidence()
    guard: Guard | None = None

    @model_validator(mode="after")
    def _has_a_bound(self) -> Policy:
        if self.threshold is None and self.budget is None:
            msg = "a policy needs a threshold, a budget or both: without either every account would be flagged → add one"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _floors_fit(self) -> Policy:
        floors = [tier for tier in self.tiers if tier.floor is not None]
        if not floors:
            return self
        n = sum(tier.floor or 0 for tier in floors)
        wrong = []
        if self.budget is None:
            wrong.append("a floor is of a budget, and there is none → add budget")
        elif n > self.budget - self.n_sampled:
            drawn = f", of which {self.n_sampled:,} are drawn at random" if self.n_sampled else ""
            wrong.append(f"the floors keep {n:,} places of a budget of {self.budget:,}{drawn} → lower them, or raise the budget")
        if self.threshold is None:
            wrong.append("a floor without a threshold would flag an account however low it scores → add threshold")
        if len({tier.by for tier in floors}) > 1:
            wrong.append("floors are of tiers by one column, or an account would fill two of them at once → choose one")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Policy:
        wrong = [
            *(["less_open is of a budget, and there is none → add budget"] if self.less_open and self.budget is None else []),
            *(["per_day paces a reserve, and there is none → add reserve"] if self.per_day and not self.reserve else []),
        ]
        if self.sample is not None and not self.n_sampled:
            wrong.append("sample is a share of a budget, and of this it is less than two accounts → raise one of the two")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @property
    def n_sampled(self) -> int:
        """How many of the budget are drawn at random."""
        return n_sampled(self.sample, self.budget)

    def columns(self) -> dict[tuple[str | int, ...], str]:
        """Place in the policy → the column of accounts that it names there."""
        named: dict[tuple[str | int, ...], str] = {("tiers", at, "by"): tier.by for at, tier in enumerate(self.tiers)}
        if self.campaign is not None:
            named["campaign", "by"] = self.campaign.by
        if self.domain is not None:
            named["domain",] = self.domain
        return named

    def pinned(self) -> dict[str, Any]:
        """What a plan pins: what was not asked for is left out, so that plans of earlier releases keep their digests."""
        always = ("queue", "threshold", "budget")
        held = self.model_dump(mode="json")
        for tier in held["tiers"]:
            if tier["floor"] is None:
                del tier["floor"]
        plain = Policy(budget=0).model_dump(mode="json")
        return {name: value for name, value in held.items() if name in always or value != plain[name]}
