"""What a feature looked like when its model was packed, and what a partition may not look like: expectations warn, limits hold.

A frame that is right by name and type may still be wrong: a source that stopped, a unit that changed. It shows in how often a
feature is missing, and in how many of its values lie where the model never saw one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from pydantic import Field, model_validator

from batchscore.errors import PartitionError, Problem
from batchscore.models.contract import Frame
from batchscore.spec import Value

if TYPE_CHECKING:
    from batchscore.models.bundle import Feature

MIN_ROWS: Final = 100  # of a frame: of fewer, a share says little
SLACK: Final = 0.1  # expected share missing: what the reference has, and this much more
MAX_OUTSIDE: Final = 0.01  # expected share of values outside the reference's range
Kind = Literal["feature_nulls", "feature_range"]


class Bounds(Value):
    """What a feature's values in one frame should keep to. ``low`` and ``high`` are float32 values; None is open.

    ``max_missing``: share of rows without a value. ``max_outside``: share of the present values below ``low`` or above ``high``.
    """

    max_missing: float = Field(default=1.0, ge=0, le=1)
    low: float | None = Field(default=None, allow_inf_nan=False)
    high: float | None = Field(default=None, allow_inf_nan=False)
    max_outside: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _low_is_below_high(self) -> Bounds:
        if self.low is not None and self.high is not None and self.low > self.high:
            msg = "low lies above high → swap them"
            raise ValueError(msg)
        return self


@dataclass(frozen=True, slots=True)
class Unlike:
    """A feature of a frame that does not keep to its bounds: how much of it, in words."""

    feature: str
    kind: Kind
    share: float
    allowed: float

    def __str__(self) -> str:
        what = "of the rows have no value" if self.kind == "feature_nulls" else "of the values are out of range"
        return f"{self.share:.1%} {what}, {self.allowed:.1%} may"


def expected_of(reference: Frame, *, categorical: Sequence[str]) -> dict[str, Bounds]:
    """What to expect of each feature: the range of the reference's values, and a tenth more missing than there."""
    found = {}
    for place, name in enumerate(reference.names):
        column = reference.matrix[:, place]
        present = column[np.isfinite(column)]
        max_missing = min(1.0, round(float(np.isnan(column).mean()) + SLACK, 4))
        if name in categorical or not len(present):
            found[name] = Bounds(max_missing=max_missing)
        else:
            low, high = float(present.min()), float(present.max())
            found[name] = Bounds(max_missing=max_missing, low=low, high=high, max_outside=MAX_OUTSIDE)
    return found


def unlike(frame: Frame, bounds: Sequence[Bounds | None]) -> Iterator[Unlike]:
    """Features of a frame that do not keep to ``bounds`` (one for each, in the frame's order); none of a short frame."""
    if len(frame) < MIN_ROWS:
        return
    for place, (name, bound) in enumerate(zip(frame.names, bounds, strict=True)):
        if bound is None:
            continue
        column = frame.matrix[:, place]
        n_missing = int(np.isnan(column).sum())
        n_present = len(column) - n_missing
        if n_missing > bound.max_missing * len(column):
            yield Unlike(name, "feature_nulls", n_missing / len(column), bound.max_missing)
        n_outside = _n_outside(column, bound)
        if n_present and n_outside > bound.max_outside * n_present:
            yield Unlike(name, "feature_range", n_outside / n_present, bound.max_outside)


def _n_outside(column: np.ndarray[tuple[int], np.dtype[np.float32]], bound: Bounds) -> int:
    """Values outside the range; NaN is none of them."""
    below = 0 if bound.low is None else int((column < np.float32(bound.low)).sum())
    above = 0 if bound.high is None else int((column > np.float32(bound.high)).sum())
    return below + above


def check_frame(frame: Frame, features: Sequence[Feature], *, where: str) -> tuple[str, ...]:
    """Alerts (`errors.ALERTS`, with the feature's name behind) of what is not as expected.

    Raises:
        PartitionError: ``feature_limit``: a declared limit is broken; all that are, are listed.
    """
    broken = tuple(unlike(frame, [feature.limits for feature in features]))
    if broken:
        raise PartitionError(
            "feature_limit",
            f"{len(broken)} limit(s) of the bundle are broken",
            where=where,
            problems=tuple(Problem(where=found.feature, what=str(found)) for found in broken),
            remedy="look at the source of these features; limits are declared when the bundle is packed",
        )
    return tuple(f"{found.kind} {found.feature}" for found in unlike(frame, [feature.expected for feature in features]))
