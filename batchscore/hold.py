"""Values of holding: what a run is held for, as a table that shows why, and who approved it. No I/O.

A *guard* looks at something of a run and finds lines that a person must see. The run is then *held*: its driver leaves, and
only an approval of those very lines lets another go on. Each guard has a *subject*: ``input``, the days that were read, and
``release``, the flags that would be put before people.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from typing import Any, Literal

from pydantic import model_validator

from batchscore.digest import digest_of
from batchscore.errors import Problem
from batchscore.values import Value

Subject = Literal["input", "release", "errors"]


class Finding(Value):
    """One line: what was counted (``of``), how many (``n``), the usual range, both ends included, and what is wrong.

    ``low`` and ``high`` are None where there is nothing to compare with; ``day`` where the line is of no single day.
    """

    of: str
    day: date | None = None
    n: int
    low: int | None = None
    high: int | None = None
    what: str

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_releases(cls, held: Any) -> Any:
        """A ledger may hold findings from when what is wrong was named by a word of people's decisions."""
        if isinstance(held, dict) and "verdict" in held:
            return {"what" if name == "verdict" else name: value for name, value in held.items()}
        return held

    @property
    def usual(self) -> str:
        """The usual range in words."""
        return "–" if self.low is None or self.high is None else f"{self.low:,} … {self.high:,}"

    def problem(self) -> Problem:
        """The line as an error lists it."""
        usual = "" if self.low is None else f", usual {self.usual}"
        return Problem(where=f"{self.of}, {self.day}" if self.day else self.of, what=f"{self.what}: {self.n:,}{usual}")


class HoldRow(Value):
    """A run was held for these findings at ``held_at``; ``approved_at`` is None while nobody approved them."""

    run_id: str
    subject: Subject
    digest: str  # of the findings: what an approval speaks of
    findings: tuple[Finding, ...]
    held_at: datetime
    approved_by: str | None = None
    approved_because: str | None = None
    approved_at: datetime | None = None

    @property
    def entry(self) -> str:
        """The approval, as the audit trail has it."""
        return f"{self.subject}, {self.digest[:12]}: {self.approved_because or ''}"


def findings_digest(findings: Iterable[Finding]) -> str:
    """64 hex over the lines, in order. ``verdict`` is the earlier name of ``what``: what was approved under it stays approved."""
    lines = (finding.model_dump(mode="json") for finding in findings)
    return digest_of([{"verdict" if name == "what" else name: value for name, value in line.items()} for line in lines])
