"""The evidence on a flag, and when it says more than there was. Pure.

A flag's *evidence* is every released run that selected its account while it stood, in the order of releases; the first is the
flag's own. The *version* of the evidence rises by one whenever a run adds to it and whenever one that added is undone, so a
person who names the version they saw has seen all of it, or is told what they have not. A run that selected the account when a
person had decided already, or that said nothing new of it (`kept`), is shown beside it, and makes no version. Evidence that a
person decided on stays when its run is undone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from batchscore.flag import AnyFlag, Flag
from batchscore.policy import MoreEvidence
from batchscore.values import Value


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


class EvidenceChange(NamedTuple):
    """What happened to an evidence: from then on it counts, or does not."""

    at: datetime
    number: int
    evidence: Evidence
    counts: bool


def evidence_changes(evidence: Sequence[Evidence]) -> list[EvidenceChange]:
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


def what_changed(evidence: Sequence[Evidence], seen: int) -> str:
    """What is new of the evidence since a version, in words. No account is named."""
    said: list[str] = []
    before: Flag | None = None
    codes: set[str] = set()
    for version, change in enumerate(evidence_changes(evidence), start=1):
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
