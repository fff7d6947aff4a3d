"""What a feature looked like when its model was packed, and what a partition may not look like: expectations warn, limits hold.

A frame that is right by name and type may still be wrong: a source that stopped, a unit that changed. It shows in how often a
feature is missing, and in how many of its values lie where the model never saw one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from batchscore.errors import PartitionError, Problem
from batchscore.models.contract import Frame, Matrix
from batchscore.values import Value

MIN_ROWS: Final = 100  # of a frame: of fewer, a share says little
_BLOCK: Final = 4_096  # rows that stay in the cache while they are compared
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

    @property
    def has_range(self) -> bool:
        """Whether values can be out of it."""
        return self.low is not None or self.high is not None

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
    n_rows = len(frame)
    if n_rows < MIN_ROWS or not any(bounds):
        return
    low, high = (_row(bounds, side) for side in ("low", "high"))
    n_missing, n_outside = np.zeros((2, len(frame.names)), np.int64)
    for first in range(0, n_rows, _BLOCK):
        rows = frame.matrix[first : first + _BLOCK]
        n_missing += _n_each(np.isnan(rows))
        n_outside += _n_each((rows < low) | (rows > high))  # NaN is neither
    for name, bound, missing, outside in zip(frame.names, bounds, n_missing.tolist(), n_outside.tolist(), strict=True):
        if bound is None:
            continue
        present = n_rows - missing
        if missing > bound.max_missing * n_rows:
            yield Unlike(name, "feature_nulls", missing / n_rows, bound.max_missing)
        if outside > bound.max_outside * present:
            yield Unlike(name, "feature_range", outside / present, bound.max_outside)


def _row(bounds: Sequence[Bounds | None], side: Literal["low", "high"]) -> Matrix:
    """One side of each feature's range, float32 (F,); infinite where it is open."""
    beyond = -np.inf if side == "low" else np.inf
    ends = [None if bound is None else (bound.low if side == "low" else bound.high) for bound in bounds]
    return np.array([beyond if end is None else end for end in ends], np.float32)


def _n_each(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint32]:
    """How many are true in each column. Bytes are summed, which is faster than a sum of bools."""
    counts: npt.NDArray[np.uint32] = np.add.reduce(mask.view(np.uint8), axis=0, dtype=np.uint32)
    return counts


class Bounded(Protocol):
    """A feature that says what its values should keep to (`bundle.Feature`)."""

    @property
    def expected(self) -> Bounds | None:
        """Beyond it a person is told."""

    @property
    def limits(self) -> Bounds | None:
        """Beyond it the partition is set aside."""


def check_frame(frame: Frame, features: Sequence[Bounded], *, where: str) -> tuple[str, ...]:
    """Alerts (`errors.ALERTS`, with the feature's name behind) of what is not as expected; ``features`` in the frame's order.

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
