"""What doctor looks at, and what it says of each thing it looked at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from batchscore.spec import RunSpec
from batchscore.values import Value

Level = Literal["ok", "warn", "fail"]


class CheckFound(Value):
    """One check: what was found, and for a warning or a failure what mends it."""

    check: str
    level: Level
    found: str
    remedy: str = ""


class Diagnosis(Value):
    """All findings, in the order they were made; ``healthy`` when none is a failure."""

    healthy: bool
    findings: tuple[CheckFound, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Patient:
    """What is to be looked at beside this machine. ``store`` is there when one was named, or the spec names one.

    ``spec`` is None when there is none at ``spec_path``, or it has mistakes.
    """

    spec_path: Path | None = None
    spec: RunSpec | None = None
    store: Path | None = None
    scheduler: str | None = None
    insecure: bool = False
    n_workers: int = 1


@dataclass(frozen=True, slots=True)
class Remark:
    """What a check returns; its name is added where the checks are listed."""

    level: Level
    found: str
    remedy: str = ""


def ok(found: str) -> Remark:
    """Nothing to do."""
    return Remark("ok", found)


def warn(found: str, remedy: str) -> Remark:
    """It will run, but not as well, or not as safely, as it could."""
    return Remark("warn", found, remedy)


def fail(found: str, remedy: str) -> Remark:
    """A run would be refused, die, or be unsafe."""
    return Remark("fail", found, remedy)
