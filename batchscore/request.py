"""Values of control: what a person asks of a run from wherever they are. No I/O.

A *request* is people's part of a run's row: ``paused`` or ``cancelled``, by whom and when. Each has a number, so that one
person's wish is never taken for another's. Its driver sees it within two seconds, and says so; it *meets* it once nothing
is under way any more.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

from batchscore.values import Value

Wish = Literal["paused", "cancelled"]
WHY_CHARS: Final = 2_000


class Request(Value):
    """What was asked. ``seen_at``: its driver knows; ``met_at``: it is so. Of a run that nobody drives it is so at once."""

    wish: Wish
    number: int
    by: str
    why: str
    at: datetime
    seen_at: datetime | None = None
    met_at: datetime | None = None

    @property
    def stands(self) -> str:
        """How the run stands: ``pausing``, ``paused``, ``cancelling``, ``cancelled``."""
        if self.met_at is not None:
            return self.wish
        return "pausing" if self.wish == "paused" else "cancelling"

    @property
    def told(self) -> str:
        """The request in words, as ``paused by anna@host since 03:12 UTC``."""
        because = f": {self.why}" if self.why else ""
        return f"{self.wish} by {self.by} since {self.at:%Y-%m-%d %H:%M} UTC{because}"
