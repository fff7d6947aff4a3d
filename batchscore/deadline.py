"""By when a run is to be over: a time of day by the clocks of a zone, or a moment. Pure; nothing here ends a run.

A time of day means its first after the run was *opened*, however often a driver is started again: one that is resumed at 06:10
missed 06:00, and has not until tomorrow.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from batchscore.values import parse_moment

_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)(?:\s+(\S+))?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Deadline:
    """Either ``moment`` (aware), or ``clock`` by the clocks of ``zone``."""

    moment: datetime | None = None
    clock: time | None = None
    zone: str = "UTC"

    def after(self, opened_at: datetime) -> datetime:
        """The moment (UTC) that it means for a run opened then (aware).

        Where clocks go forward over that time of day, it is as long after midnight as on any other day; where they show it
        twice, the first.
        """
        if self.moment is not None:
            return self.moment
        assert self.clock is not None
        zone = ZoneInfo(self.zone)
        day = opened_at.astimezone(zone).date()
        while (found := datetime.combine(day, self.clock, zone).astimezone(UTC)) <= opened_at:
            day += timedelta(days=1)
        return found


def parse_deadline(text: str) -> Deadline:
    """``06:00`` (UTC, as all times are), ``06:00 Europe/Berlin``, or a moment as specs have them: ``2026-11-27T06:00:00Z``.

    Raises:
        ValueError: it is none of these.
    """
    if (match := _CLOCK.fullmatch(text.strip())) is not None:
        zone = match[3] or "UTC"
        try:
            ZoneInfo(zone)
        except (KeyError, ValueError, OSError):
            msg = f"{zone!r} is not a time zone → write UTC, or a name such as Europe/Berlin"
            raise ValueError(msg) from None
        return Deadline(clock=time(int(match[1]), int(match[2])), zone=zone)
    try:
        return Deadline(moment=parse_moment(text))
    except ValueError:
        msg = f"{text!r} is no deadline → write 06:00, '06:00 Europe/Berlin', or 2026-11-27T06:00:00Z"
        raise ValueError(msg) from None


def lateness_told(deadline_at: datetime, ends_at: datetime, *, over: bool) -> str:
    """How a run stands to its deadline, in words; ``ends_at``: when it ended, or is expected to."""
    late = ends_at - deadline_at
    minutes = f"{abs(late) / timedelta(minutes=1):,.0f} min"
    ends = f"{'over' if over else 'expected'} {ends_at:%Y-%m-%d %H:%M} UTC"
    return f"deadline {deadline_at:%Y-%m-%d %H:%M} UTC; {ends}, {minutes} {'LATE' if late > timedelta(0) else 'before'}"
