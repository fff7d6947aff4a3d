"""What is said of an error beside its meaning."""

from __future__ import annotations

from typing import Final, NamedTuple

BEFORE: Final = "2: refused, nothing was written"
ANYWHERE: Final = "2 when a plan finds it; 3 when an attempt does, and its partition alone is quarantined"


class Advice(NamedTuple):
    """Common causes, most likely first; and what to do, with the command to type."""

    causes: str
    remedy: str
