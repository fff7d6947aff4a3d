"""Values of the review queue: a flag, its state, and the account id it is about."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import TypeAdapter

from batchscore.spec import Value

AccountId = int | str


class FlagState(StrEnum):
    """Where a flag stands. `open` is the only state in which the engine may still touch it."""

    OPEN = "open"
    OVERTAKEN = "overtaken"  # at release another run's flag was already open for this account and queue
    WITHDRAWN = "withdrawn"  # its run was undone before a person touched it; the run's row says when, by whom and why


class Reason(Value):
    """Why the model leans towards (or against) abuse, in words. ``contribution`` is in units of margin."""

    code: str
    sentence: str
    contribution: float


REASONS: Final = TypeAdapter(tuple[Reason, ...])  # how reasons are kept as JSON, in files and in the store


class Flag(Value):
    """A person should look at this account, for these reasons."""

    queue: str
    account_id: AccountId
    run_id: str
    as_of: datetime
    rank: int
    score: float
    margin: float
    reasons: tuple[Reason, ...]
    bundle_digest: str
