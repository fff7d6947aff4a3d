"""Values of the desk, where people meet flags: what a reviewer sees, what they say, and what that makes of a flag. Pure.

A flag's *evidence* is every released run that selected its account while it stood, in the order of releases; the first is the
flag's own. The *version* of the evidence rises by one whenever a run adds to it and whenever one that added is undone, so a
person who names the version they saw has seen all of it, or is told what they have not. A run that selected the account when a
person had decided already, or that said nothing new of it (`kept`), is shown beside it, and makes no version. Evidence that a
person decided on stays when its run is undone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from batchscore.errors import Refused
from batchscore.flag import DECIDED, AccountId, Actor, AnyFlag, Disposition, Flag, FlagState, may_change
from batchscore.policy import MoreEvidence
from batchscore.spec import Value

CLOCKS_APART: Final = timedelta(minutes=10)  # how far another tool's clock may be from the database's


class Evidence(Value):
    """What one run says of the account. ``number`` from 1; ``withdrawn_at``: its run was undone, so it says nothing any more.

    ``kept``: it changed nothing, since a person had decided already on evidence as new, or the newest evidence says the same or
    is of a later as-of; it is no part of what a decision speaks of. An undo of other evidence may turn that, either way: so many
    ``turns`` it took, the last at ``turned_at``.
    """

    number: int
    flag: Flag
    released_at: datetime
    withdrawn_at: datetime | None = None
    kept: bool = False
    turns: int = 0
    turned_at: datetime | None = None

    @property
    def came_kept(self) -> bool:
        """Whether it changed nothing when it came."""
        return self.kept != bool(self.turns % 2)


class Said(NamedTuple):
    """What evidence says, as far as newer evidence is held against it. ``codes``: of the reasons towards abuse."""

    as_of: datetime
    score: float
    codes: frozenset[str]
    second_reviewer: bool

    @classmethod
    def by(cls, flag: AnyFlag) -> Said:
        """What a flag says as evidence."""
        codes = frozenset(reason.code for reason in flag.reasons if reason.contribution > 0)
        return cls(flag.as_of, flag.score, codes, flag.second_reviewer)


def says_more(said: Said, newest: Said, least: MoreEvidence) -> bool:
    """Whether evidence adds to the newest there is: of no earlier as-of, and moved far enough or asks for a second reviewer."""
    if said.as_of < newest.as_of:
        return False
    moved = abs(said.score - newest.score) >= least.score or len(said.codes - newest.codes) >= least.reasons
    return moved or (said.second_reviewer and not newest.second_reviewer)


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


class Effect(Value):
    """What an opinion makes of a flag; ``state`` is None where it has been said before: nothing is written then."""

    state: FlagState | None
    evidence: int
    evidence_run: str


def effect_of(held: Reviewed, opinion: Opinion, now: datetime) -> Effect:
    """What an opinion makes of the flag as it is now, if it stands; ``now`` by the database's clock.

    Two people: a flag that needs a second reviewer awaits one after the first opinion; the second must be by another name, and
    where the two differ it is inconclusive. A correction is held against the newest disposition by another name, in the same way.

    Raises:
        Refused: ``flag_taken``, ``flag_changed``, ``second_reviewer``, ``flag_decided`` or ``decision_time``; no message names
            the account.
    """
    seen = _seen(held, opinion)
    if _is_said_already(held, opinion):
        return Effect(state=None, evidence=seen[0], evidence_run=seen[1])
    where = f"queue {opinion.queue}"
    _refuse_impossible(held, opinion, now, where)
    if held.claim is not None and held.claim.by != opinion.by:
        raise Refused(
            "flag_taken",
            f"{held.claim.by} is at this flag until {held.claim.until:%Y-%m-%d %H:%M} UTC",
            where=where,
            remedy="ask them, or wait: a claim that is not used comes back",
        )
    if held.state in DECIDED and not opinion.correct:
        last = held.decided[-1]
        raise Refused(
            "flag_decided",
            f"{last.by} decided on {last.decided_at:%Y-%m-%d %H:%M} UTC: {held.state}",
            where=where,
            remedy="look at it again; --correct puts another decision beside that one",
        )
    if held.undone and held.state is FlagState.OPEN:
        _refuse_gone(where)
    if held.first_opinion_by() == opinion.by:
        raise Refused(
            "second_reviewer",
            "this flag needs a second reviewer, and you were the first",
            where=where,
            remedy="leave it to somebody else",
        )
    _refuse_stale(held, opinion, where)
    state = settled(opinion, held.decided, needs_second=held.needs_second)
    if state is not held.state and not may_change(held.state, state, Actor.PERSON):
        _refuse_gone(where)
    return Effect(state=state, evidence=seen[0], evidence_run=seen[1])


def refuse_other_page(opinion: Opinion, held: Reviewed, of_account: Iterable[Reviewed]) -> None:
    """Raise Refused ``flag_changed`` where the version that is named, of no run, may be that of another flag of the account.

    That one was withdrawn, decided or expired, and another came, with a first version of its own: whoever has the old page has
    not seen it. Whoever has claimed the flag has.
    """
    has_claimed = held.claim is not None and held.claim.by == opinion.by
    if opinion.run_id is not None or opinion.evidence is None or has_claimed:
        return
    others = (one for one in of_account if one.flag.run_id != held.flag.run_id)
    other = next((one for one in others if _was_shown(one, opinion.evidence)), None)
    if other is not None:
        raise Refused(
            "flag_changed",
            f"a flag of run {other.flag.run_id} had that version, and was {other.state}; "
            f"the one that this would be of is of run {held.flag.run_id}",
            where=f"queue {opinion.queue}",
            remedy="look at it again: batchscore queue show, then decide with --run and the run of the flag that you saw "
            "(in a file: column run_id)",
        )


def _was_shown(flag: Reviewed, version: int) -> bool:
    """Whether reviewers saw that version of a flag: the last one of a flag that was withdrawn is its end."""
    return version < flag.version or (version == flag.version and flag.state is not FlagState.WITHDRAWN)


def settled(opinion: Opinion, before: Sequence[DispositionRow], *, needs_second: bool) -> FlagState:
    """What a flag becomes by an opinion, given the dispositions before."""
    said = FlagState(opinion.disposition.value)
    if not needs_second:
        return said
    other = next((one for one in reversed(before) if one.by != opinion.by), None)
    if other is None:
        return FlagState.AWAITING
    return said if other.disposition is opinion.disposition else FlagState.INCONCLUSIVE


class EvidenceChange(NamedTuple):
    """What happened to an evidence: from then on it counts, or does not."""

    at: datetime
    number: int
    evidence: Evidence
    counts: bool


def changes(evidence: Sequence[Evidence]) -> list[EvidenceChange]:
    """What happened to the evidence, in order of time: the n-th entry made version n.

    An evidence may come, be turned by the undo of other evidence (each time at the moment of the last), and be withdrawn.
    """
    found: list[EvidenceChange] = []
    for one in evidence:
        if not one.came_kept:
            found.append(EvidenceChange(one.released_at, one.number, one, counts=True))
        for turn in range(one.turns):
            at = one.turned_at or one.released_at
            found.append(EvidenceChange(at, one.number, one, counts=one.came_kept == (turn % 2 == 0)))
        if one.withdrawn_at is not None and not one.kept:
            found.append(EvidenceChange(one.withdrawn_at, one.number, one, counts=False))
    return sorted(found, key=lambda change: change[:2])  # those of one evidence stay in their order


def what_changed(held: Reviewed, seen: int) -> str:
    """What is new of the evidence since a version, in words. No account is named."""
    said: list[str] = []
    before: Flag | None = None
    codes: set[str] = set()
    for version, change in enumerate(changes(held.evidence), start=1):
        one, flag = change.evidence, change.evidence.flag
        if not change.counts:
            if version > seen:
                gone = change.at == one.withdrawn_at
                why = f"was withdrawn: its run {flag.run_id} was undone" if gone else "says no more than what stands by now"
                said.append(f"evidence {one.number} {why}")
            continue
        towards = {reason.code for reason in flag.reasons if reason.contribution > 0}
        if version > seen:
            moved = f"score {flag.score:.4f}" if before is None else f"score {before.score:.4f} → {flag.score:.4f}"
            new = f"new reasons: {', '.join(sorted(towards - codes))}" if towards - codes else "no new reason"
            said.append(f"evidence {one.number} came, of run {flag.run_id} as of {flag.as_of:%Y-%m-%d}: {moved}, {new}")
        before, codes = flag, codes | towards
    return "; ".join(said)


def _seen(held: Reviewed, opinion: Opinion) -> tuple[int, str]:
    """The version that the person saw, and the run of its newest evidence."""
    if opinion.evidence is not None or opinion.decided_at is None:
        return opinion.evidence or held.version, held.newest.flag.run_id
    by_then = [change for change in changes(held.evidence) if change.at <= opinion.decided_at]
    stood: dict[int, Evidence] = {}
    for change in by_then:
        stood.pop(change.number, None)
        if change.counts:
            stood[change.number] = change.evidence
    seen = [*stood.values()] or [change.evidence for change in by_then] or [held.evidence[0]]
    return max(1, len(by_then)), seen[-1].flag.run_id


def _is_said_already(held: Reviewed, opinion: Opinion) -> bool:
    """The same person said the same: at that moment, or last of all that they said. A file imported twice is imported once.

    A correction is new unless nobody has decided since. A version that is named must be the one they spoke of.
    """

    def same(one: DispositionRow) -> bool:
        return one.by == opinion.by and one.disposition is opinion.disposition

    if opinion.decided_at is not None:
        return any(same(one) and one.decided_at == opinion.decided_at for one in held.decided)
    theirs = held.decided if opinion.correct else [one for one in held.decided if one.by == opinion.by]
    return bool(theirs) and same(theirs[-1]) and opinion.evidence in {None, theirs[-1].evidence}


def _refuse_impossible(held: Reviewed, opinion: Opinion, now: datetime, where: str) -> None:
    at, first = opinion.decided_at, held.released_at
    if at is None or first - CLOCKS_APART <= at <= now + CLOCKS_APART:
        return
    raise Refused(
        "decision_time",
        f"decided_at is {at:%Y-%m-%d %H:%M} UTC: "
        + ("that is yet to come" if at > now else f"the flag was released only on {first:%Y-%m-%d %H:%M} UTC"),
        where=where,
        remedy="give a moment with a zone, or whole microseconds since 1970 (not seconds, not milliseconds)",
    )


def _refuse_stale(held: Reviewed, opinion: Opinion, where: str) -> None:
    if opinion.evidence is not None and opinion.evidence != held.version:
        raise Refused(
            "flag_changed",
            f"you saw version {opinion.evidence} of the evidence, it is {held.version} by now: "
            + (what_changed(held, opinion.evidence) or "no such version was ever shown"),
            where=where,
            remedy="look at it again: batchscore queue show, then decide on what it says",
        )


def _refuse_gone(where: str) -> None:
    raise Refused(
        "flag_changed",
        "the flag was withdrawn meanwhile: its run was undone",
        where=where,
        remedy="nothing needs to be done: it is before nobody any more",
    )
