"""Rows of the review queue as they go over the ports: flags as each reader needs them, suppressions, what an undo leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from batchscore.flag import BEFORE_REVIEWERS, Flag, ReleasedAs
from batchscore.values import Value


class PastColumns(NamedTuple):
    """What decide may know of earlier flags: when an account was flagged, until when it stood, and what came of it.

    As columns, all as long as each other, since a queue remembers hundreds of thousands. Moments are whole microseconds since
    1970, states the words of `FlagState`. ``run_id``, ``as_of``, ``score``, ``margin``, ``reason_codes`` (those towards abuse,
    strongest first) and ``second_reviewer`` are of the evidence that the newest decision speaks of; while the flag stands, of
    its newest evidence. ``reason_codes`` are of decisions alone, since nobody asks for others; else there are none.
    ``decided_at``: when a person last decided, None if nobody did.
    """

    account_id: Sequence[int | str]
    opened_at: Sequence[int]
    closed_at: Sequence[int | None]
    run_id: Sequence[str]
    as_of: Sequence[int]
    state: Sequence[str]
    score: Sequence[float]
    reason_codes: Sequence[tuple[str, ...]]
    decided_at: Sequence[int | None]
    margin: Sequence[float | None]
    second_reviewer: Sequence[bool]


class MemoryRead(NamedTuple):
    """When a run read the memory that it decides by: the time, and the newest event of flags then; None: its file does not say.

    Events are numbered in the order of commits, so what a person decided is after that one if memory may not hold it.
    """

    at: datetime
    event: int | None = None


class Suppression(Value):
    """Accounts that are scored and not flagged from ``begins_at`` up to ``until``: why, and who answers for it.

    ``key``: the account id as text, the domain, or the value of the segment. One that was removed has ended when it was.
    """

    scope: Literal["account", "domain", "segment"]
    key: str
    owner: str
    why: str
    begins_at: datetime
    until: datetime


class FlagRow(Value):
    """A released flag as a reviewer sees it."""

    flag: Flag
    state: str
    released_at: datetime


class HeldFlag(Value):
    """A flag of a run as the table holds it, before whomever it stands.

    ``is_open``: it counts as its account's open flag. ``released_as``: what its release made of it. ``ordinal``: its place among
    all that the run ever put there, from 1. ``turns``: how often undos turned it since.
    """

    flag: Flag
    state: str
    is_open: bool
    opened_at: datetime
    released_as: ReleasedAs = ReleasedAs.OPENED
    ordinal: int = 0
    turns: int = 0


class HeldOpinion(NamedTuple):
    """What a person said of a flag, as the table holds it; ``state``: what the flag became by it. ``digest``: of the row."""

    queue: str
    account_id: int | str
    by: str
    state: str
    digest: str


class HeldClaim(NamedTuple):
    """The newest claim of a flag; ``ended``: it was given back, or the flag was decided."""

    account_id: int | str
    by: str
    ended: bool


class HeldChange(NamedTuple):
    """A row of the outbox; of a release, which is one row for ``n`` flags, ``account_id`` is None."""

    queue: str
    n: int
    act: str
    who: str
    account_id: int | str | None
    state: str


class ReleaseCount(Value):
    """What a release did. ``n_flags`` opened; ``n_instead`` of them beyond the budget, in the place of flags withdrawn since.

    ``n_overtaken``: flags that did not open. Of these ``n_decided_kept`` for what a person had decided; ``n_evidence`` added to a
    flag that stands; the others said nothing new. ``n_suppressed``: kept back, since a suppression came after the run decided.
    """

    n_flags: int
    n_overtaken: int
    n_decided_kept: int = 0
    n_evidence: int = 0
    n_instead: int = 0
    n_suppressed: int = 0

    @classmethod
    def of(cls, counts: Mapping[ReleasedAs, int]) -> ReleaseCount:
        """``counts``: what the release made of them → how many flags."""
        n_flags = sum(counts.get(kind, 0) for kind in BEFORE_REVIEWERS)
        n_suppressed = counts.get(ReleasedAs.SUPPRESSED, 0)
        return cls(
            n_flags=n_flags,
            n_overtaken=sum(counts.values()) - n_flags - n_suppressed,
            n_decided_kept=counts.get(ReleasedAs.KEPT, 0),
            n_evidence=counts.get(ReleasedAs.EVIDENCE, 0),
            n_instead=counts.get(ReleasedAs.INSTEAD, 0),
            n_suppressed=n_suppressed,
        )

    def said(self, flags: str = "flags") -> str:
        """In words, for the audit trail: `verify` reads them."""
        more = f", {self.n_suppressed} suppressed since" if self.n_suppressed else ""
        kinds = f"({self.n_evidence} evidence, {self.n_decided_kept} kept)"
        return f"{self.n_flags} {flags}, {self.n_overtaken} overtaken {kinds}{more}"


class LeftFlag(Value):
    """A flag that an undo leaves, since a person touched it: ``state`` says what they made of it."""

    queue: str
    account_id: int | str
    state: str


class Undo(Value):
    """What the undo of a run does; of one that was ``applied``, in part or whole: what it did and what is still to do.

    ``n_withdrawn``: its flags that no person touched. ``n_restored``: flags of other runs that stand again in their place.
    ``n_overtaken``: its flags that were never before the reviewers, ``n_evidence`` of them evidence on flags of other runs, which
    goes with the run unless a person decided on it. ``n_turned``: evidence of later runs that says something new, or does so no
    more, now that the run's is gone. ``left``: the others.
    """

    run_id: str
    released_at: datetime | None
    begun_at: datetime | None
    undone_at: datetime | None
    by: str
    why: str
    n_withdrawn: int
    n_restored: int
    n_overtaken: int
    n_evidence: int = 0
    n_turned: int = 0
    left: tuple[LeftFlag, ...]
