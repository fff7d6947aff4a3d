"""Decides, from what was seen of a live source, whether to read on, to wait or to end. Pure: `brake` does the looking."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from batchscore.spec import Gentle

# MariaDB's names, and those of MySQL since 8.0.22
_BEHIND: Final = ("Seconds_Behind_Source", "Seconds_Behind_Master")

Cause = Literal["", "pause flag", "office hours", "critical load", "replica lag", "load"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What was seen; None is what was not looked at, or is not there. ``flag`` names the pause flag that is raised.

    ``lag_s``: seconds that the replica furthest behind is behind; infinite for one that does not replicate.
    """

    flag: str = ""
    threads_running: int | None = None
    lag_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Ruling:
    """``go``, ``wait`` or ``end``; ``reason`` is for people and empty for go."""

    move: Literal["go", "wait", "end"]
    cause: Cause = ""
    reason: str = ""


GO: Final = Ruling(move="go")


def judge(load: Load, gentle: Gentle, at: datetime) -> Ruling:
    """What to do at that moment. A person's wish comes first: a run that waits for one is not ended by a load of others."""
    if load.flag:
        return _wait("pause flag", f"the pause flag is raised: {load.flag}")
    hours = gentle.office_hours
    if hours is not None and hours.are_at(at):
        return _wait("office hours", f"office hours, until {hours.closes:%H:%M} {hours.zone}")
    running = load.threads_running
    if running is not None and running > gentle.critical_threads_running:
        reason = f"the source runs {running} threads, its critical load is {gentle.critical_threads_running}"
        return Ruling(move="end", cause="critical load", reason=reason)
    if load.lag_s is not None and gentle.replica_lag_s is not None and load.lag_s > gentle.replica_lag_s:
        behind = "does not replicate" if math.isinf(load.lag_s) else f"is {load.lag_s:g} s behind"
        return _wait("replica lag", f"a replica {behind}, the limit is {gentle.replica_lag_s:g} s")
    if running is not None and running > gentle.threads_running:
        return _wait("load", f"the source runs {running} threads, the limit is {gentle.threads_running}")
    return GO


def _wait(cause: Cause, reason: str) -> Ruling:
    return Ruling(move="wait", cause=cause, reason=reason)


def replica_lag(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Seconds behind from the rows of SHOW REPLICA STATUS, one for each channel: the largest; None of no replica.

    What a replica is told to lag (SQL_Delay) does not count. One that does not replicate has no figure, and is infinitely behind.
    """
    lags = []
    for row in rows:
        behind = next((row[name] for name in _BEHIND if name in row), None)
        lags.append(math.inf if behind is None else max(0.0, float(behind) - float(row.get("SQL_Delay") or 0)))
    return max(lags, default=None)


def worse(one: float | None, other: float | None) -> float | None:
    """The larger of two lags, either of which may be unknown."""
    return max((lag for lag in (one, other) if lag is not None), default=None)
