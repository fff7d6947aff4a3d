"""Values of the review queue: a flag, its state, who may change it to what, and the account id it is about. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from pydantic import TypeAdapter

from batchscore.values import Value

AccountId = int | str


class FlagState(StrEnum):
    """Where a flag stands. `open` is the only state in which the engine may still touch it."""

    OPEN = "open"
    CLAIMED = "claimed"  # a reviewer is at it, until their claim is given back or runs out
    AWAITING = "awaiting"  # one person has decided, and it needs a second reviewer
    CONFIRMED = "confirmed"
    CLEARED = "cleared"
    INCONCLUSIVE = "inconclusive"
    EXPIRED = "expired"  # nobody took it for longer than the queue's age
    OVERTAKEN = "overtaken"  # at release another run's flag stood for this account and queue: this one is evidence on that
    WITHDRAWN = "withdrawn"  # its run was undone before a person touched it; the run's row says when, by whom and why


class Disposition(StrEnum):
    """What a reviewer decided."""

    CONFIRMED = "confirmed"
    CLEARED = "cleared"
    INCONCLUSIVE = "inconclusive"


class Actor(StrEnum):
    """Who changes a flag's state: the engine (release, undo, expiry) or a person (claim, decision)."""

    ENGINE = "engine"
    PERSON = "person"


class ReleasedAs(StrEnum):
    """What a release makes of a flag: it opens, is evidence on one that stands, or changes nothing. It stays what it was then."""

    OPENED = "opened"
    INSTEAD = "instead"  # opened, beyond the budget: it was to add to a flag that was withdrawn since its run decided
    EVIDENCE = "evidence"
    KEPT = "kept"  # a person had decided
    UNMOVED = "unmoved"  # the newest evidence says as much, or is of a later as-of; or the flag it was for has left the queue
    SUPPRESSED = "suppressed"  # before nobody: a suppression came since its run decided


BEFORE_REVIEWERS: Final = frozenset({ReleasedAs.OPENED, ReleasedAs.INSTEAD})


DECIDED: Final = frozenset({FlagState.CONFIRMED, FlagState.CLEARED, FlagState.INCONCLUSIVE})
STANDING: Final = frozenset({FlagState.OPEN, FlagState.CLAIMED, FlagState.AWAITING})  # an account has one such in a queue
TOUCHED: Final = DECIDED | {FlagState.CLAIMED, FlagState.AWAITING}  # by a person: no undo and no release changes it

_BY_PERSON: Final = dict.fromkeys((*sorted(DECIDED), FlagState.AWAITING), Actor.PERSON)

# State → what it may become, and by whom. The only such table: verbs, imports, undo, expiry, triggers and verify go by it.
CHANGES: Final[Mapping[FlagState, Mapping[FlagState, Actor]]] = MappingProxyType(
    {
        FlagState.OPEN: {
            FlagState.CLAIMED: Actor.PERSON,
            **_BY_PERSON,
            FlagState.EXPIRED: Actor.ENGINE,
            FlagState.OVERTAKEN: Actor.ENGINE,  # of a run that stopped inside its release: nobody had seen it
            FlagState.WITHDRAWN: Actor.ENGINE,
        },
        FlagState.CLAIMED: {FlagState.OPEN: Actor.PERSON, **_BY_PERSON},
        FlagState.AWAITING: {FlagState.CLAIMED: Actor.PERSON, **dict.fromkeys(sorted(DECIDED), Actor.PERSON)},
        FlagState.CONFIRMED: dict.fromkeys(sorted(DECIDED - {FlagState.CONFIRMED}), Actor.PERSON),
        FlagState.CLEARED: dict.fromkeys(sorted(DECIDED - {FlagState.CLEARED}), Actor.PERSON),
        FlagState.INCONCLUSIVE: dict.fromkeys(sorted(DECIDED - {FlagState.INCONCLUSIVE}), Actor.PERSON),
        # A decision that arrives late is one still.
        FlagState.EXPIRED: {**_BY_PERSON, FlagState.WITHDRAWN: Actor.ENGINE},
        FlagState.OVERTAKEN: {FlagState.OPEN: Actor.ENGINE},  # what it gave way to was withdrawn
        FlagState.WITHDRAWN: {},
    }
)


def may_change(before: FlagState, after: FlagState, actor: Actor) -> bool:
    """Whether ``actor`` may bring a flag from one state to the other."""
    return CHANGES[before].get(after) is actor


class Reason(Value):
    """Why the model leans towards (or against) abuse, in words. ``contribution`` is in units of margin."""

    code: str
    sentence: str
    contribution: float


GROUP_CHARS: Final = 255  # of a flag's group and of its ``since``, at most: what is longer is cut when it is decided
SINCE_CHARS: Final = 1_024
REASONS: Final = TypeAdapter(tuple[Reason, ...])  # how reasons are kept as JSON, in files and in the store


class Flag(Value):
    """A person should look at this account, for these reasons.

    ``group``: what it shares with other flags that are shown with it (a campaign), or empty. ``since``: what moved since a
    person decided on the account, in words, or empty. ``second_reviewer``: two people must agree on it.
    """

    queue: str
    account_id: AccountId
    run_id: str
    as_of: datetime
    rank: int
    score: float
    margin: float
    reasons: tuple[Reason, ...]
    bundle_digest: str
    group: str = ""
    since: str = ""
    second_reviewer: bool = False

    @property
    def reasons_json(self) -> str:
        """The reasons as they are kept."""
        return REASONS.dump_json(self.reasons).decode()


_NOT_KEPT: Final = frozenset({"reasons_json", "domain", "segment"})


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenFlag:
    """A `Flag` on its way from the files into the queue, its reasons the JSON that both keep: reading it costs most.

    ``domain``, ``segment``: the account's, by which it may be suppressed; the queue does not keep them.
    """

    queue: str
    account_id: AccountId
    run_id: str
    as_of: datetime
    rank: int
    score: float
    margin: float
    reasons_json: str
    bundle_digest: str
    group: str
    since: str
    second_reviewer: bool
    domain: str | None = None
    segment: str | None = None

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """The reasons as values, read anew each time."""
        return REASONS.validate_json(self.reasons_json)

    def read(self) -> Flag:
        """The flag, its reasons as values."""
        held = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _NOT_KEPT}
        return Flag(**held, reasons=self.reasons)


AnyFlag = Flag | WrittenFlag  # what a release is given
