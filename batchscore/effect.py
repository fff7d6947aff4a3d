"""What a person's opinion makes of a flag as it stands, or why it is refused. Pure: the desk asks under a lock, and writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from batchscore.command import whole_command, word
from batchscore.desk import DispositionRow, Opinion, Reviewed
from batchscore.errors import Refused
from batchscore.evidence import Evidence, evidence_changes, what_changed
from batchscore.flag import DECIDED, Actor, FlagState, may_change
from batchscore.values import Value

CLOCKS_APART: Final = timedelta(minutes=10)  # how far another tool's clock may be from the database's


class Effect(Value):
    """What an opinion makes of a flag; ``state`` is None where it has been said before: nothing is written then."""

    state: FlagState | None
    evidence: int
    evidence_run: str


def effect_of(held: Reviewed, opinion: Opinion, now: datetime, store: Path | str = "") -> Effect:
    """What an opinion makes of the flag as it is now, if it stands; ``now`` by the database's clock. ``store``: its folder.

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
    _refuse_stale(held, opinion, where, store)
    state = _settled(opinion, held.decided, needs_second=held.needs_second)
    if state is not held.state and not may_change(held.state, state, Actor.PERSON):
        _refuse_gone(where)
    return Effect(state=state, evidence=seen[0], evidence_run=seen[1])


def refuse_other_page(opinion: Opinion, held: Reviewed, of_account: Iterable[Reviewed], store: Path | str = "") -> None:
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
            remedy=f"look at it again: {show_command(opinion, store)}; "
            "then decide with --run and the run of the flag that you saw (in a file: column run_id)",
        )


def _was_shown(flag: Reviewed, version: int) -> bool:
    """Whether reviewers saw that version of a flag: the last one of a flag that was withdrawn is its end."""
    return version < flag.version or (version == flag.version and flag.state is not FlagState.WITHDRAWN)


def _settled(opinion: Opinion, before: Sequence[DispositionRow], *, needs_second: bool) -> FlagState:
    """What a flag becomes by an opinion, given the dispositions before."""
    said = FlagState(opinion.disposition.value)
    if not needs_second:
        return said
    other = next((one for one in reversed(before) if one.by != opinion.by), None)
    if other is None:
        return FlagState.AWAITING
    return said if other.disposition is opinion.disposition else FlagState.INCONCLUSIVE


def _seen(held: Reviewed, opinion: Opinion) -> tuple[int, str]:
    """The version that the person saw, and the run of its newest evidence."""
    if opinion.evidence is not None or opinion.decided_at is None:
        return opinion.evidence or held.version, held.newest.flag.run_id
    by_then = [change for change in evidence_changes(held.evidence) if change.at <= opinion.decided_at]
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


def _refuse_stale(held: Reviewed, opinion: Opinion, where: str, store: Path | str) -> None:
    if opinion.evidence is not None and opinion.evidence != held.version:
        raise Refused(
            "flag_changed",
            f"you saw version {opinion.evidence} of the evidence, it is {held.version} by now: "
            + (what_changed(held.evidence, opinion.evidence) or "no such version was ever shown"),
            where=where,
            remedy=f"look at it again: {show_command(opinion, store)}; then decide on what it says",
        )


def show_command(opinion: Opinion, store: Path | str) -> str:
    """How all is seen that is known of the account, which no message names."""
    return whole_command("queue show", store, "ACCOUNT", "--queue", word(opinion.queue))


def _refuse_gone(where: str) -> None:
    raise Refused(
        "flag_changed",
        "the flag was withdrawn meanwhile: its run was undone",
        where=where,
        remedy="nothing needs to be done: it is before nobody any more",
    )
