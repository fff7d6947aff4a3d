"""One benchmark's figure: a ratio, and the floor (or ceiling) it must hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """``ratio`` against ``floor``: at least it when ``higher_is_better``, else below it. ``detail`` has what was measured."""

    name: str
    ratio: float
    floor: float
    higher_is_better: bool
    detail: str

    @property
    def holds(self) -> bool:
        return self.ratio >= self.floor if self.higher_is_better else self.ratio < self.floor

    def line(self) -> str:
        sign = "≥" if self.higher_is_better else "<"
        return (
            f"{'ok  ' if self.holds else 'FAIL'} {self.name:<34} {self.ratio:>8.3f} (must be {sign} {self.floor})  {self.detail}"
        )

    def as_json(self, versions: dict[str, str]) -> dict[str, Any]:
        return {
            "name": self.name,
            "ratio": self.ratio,
            "floor": self.floor,
            "higher_is_better": self.higher_is_better,
            "detail": self.detail,
            "versions": versions,
        }
