"""Values of the desk, where people meet flags: what a reviewer sees of a flag, what they say of it, and what changed."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from batchscore.evidence import Evidence
from batchscore.flag import AccountId, Disposition, Flag, FlagState
from batchscore.values import Value


class Claim(Value):
    """A reviewer is at a flag until that moment; afterwards it is free, whoever may say so first."""

    by: str
    claimed_at: datetime
    until: datetime


class DispositionRow(Value):
    """What a person decided, as `dispositions` holds it. ``state``: what the flag became; ``evidence``: the version they saw."""

    number: int
    disposition: Disposition
    state: FlagState
    by: str
    decided_at: datetime
    evidence: int
    why: str = ""
    source: str = "queue"


class Reviewed(Value):
    """A flag as the desk holds it. ``state`` is `open` again once a claim has run out; ``version`` is that of its evidence."""

    flag: Flag
    state: FlagState
    released_at: datetime
    version: int
    evidence: tuple[Evidence, ...]
    claim: Claim | None = None
    decided: tuple[DispositionRow, ...] = ()
    undone: bool = False  # its run was undone, and a person had touched it

    @property
    def newest(self) -> Evidence:
        """The newest evidence that stands, by its as-of; the flag's own where all of it was withdrawn."""
        stands = (one for one in self.evidence if one.withdrawn_at is None and not one.kept)
        return max(stands, key=lambda one: (one.flag.as_of, one.number), default=self.evidence[0])

    @property
    def needs_second(self) -> bool:
        """Whether two people must agree: the flag asks for it, or newer evidence that stands does."""
        said = (one.flag.second_reviewer for one in self.evidence if one.withdrawn_at is None and not one.kept)
        return self.flag.second_reviewer or any(said)

    def first_opinion_by(self) -> str | None:
        """Who decided first, while a second reviewer is awaited."""
        return self.decided[-1].by if self.decided and self.decided[-1].state is FlagState.AWAITING else None


class Wanted(Value):
    """Which flags to show: of a queue (None: every one), in those states (those that stand), by group, claimant, reason, run."""

    queue: str | None = None
    states: tuple[FlagState, ...] = ()
    group: str | None = None
    claimed_by: str | None = None
    reason: str | None = None
    run_id: str | None = None


class Happened(StrEnum):
    """What an event says of a flag; `released` is a run's, and is read as one of the first three for each of its flags."""

    OPENED = "opened"
    EVIDENCE = "evidence"  # on a flag that stands: that of the run's row `overtaken_by`
    KEPT = "kept"  # a person had decided on evidence as new: what they said stays
    UNMOVED = "unmoved"  # the newest evidence says the same, or is of a later as-of: nothing changed
    SUPPRESSED = "suppressed"  # a suppression came since the run decided: before nobody
    CLAIMED = "claimed"
    RETURNED = "returned"
    DECIDED = "decided"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    RESTORED = "restored"
    RELEASED = "released"


class QueueEvent(Value):
    """One change of a flag, for whoever enforces or keeps tickets. ``run_id``: the flag's; ``state``: what it became."""

    number: int
    at: datetime
    act: Happened
    who: str
    queue: str
    account_id: AccountId
    run_id: str
    state: FlagState


class Opinion(Value):
    """What a person says of an account's flag: of that run's, or of the one that stands, else of the newest.

    ``evidence``: the version they saw; None where whoever reports it cannot know (an import): what was released by
    ``decided_at``. ``decided_at``: when; None is now. ``correct``: they know that it was decided already.
    """

    queue: str
    account_id: AccountId
    disposition: Disposition
    by: str
    evidence: int | None = None
    run_id: str | None = None
    decided_at: datetime | None = None
    why: str = ""
    correct: bool = False
