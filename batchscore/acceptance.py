"""What of a plan differs from the world as it is now, part by part, and which of that a person may accept. Pure.

Input, bundles, feature set, policy, dates and limits are *what was asked*: other ones are another run. Libraries, batchscore's
own code among them, are *how it is answered*, and bits that are demanded guard those once more: golden rows on every worker, and
the margin of every flag when it is explained. So a person may accept another version, and a run that goes on with it says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from batchscore.errors import Problem, Refused
from batchscore.plan import InputFile, Plan
from batchscore.values import Value

LIBRARY: Final = "library "  # pinned parts of this beginning may be accepted; batchscore's code is one
SOURCE: Final = "source "
NOTHING: Final = "nothing"
MAX_FILES: Final = 3  # that are named of a source
_SHORT: Final = 20  # longer values are digests, and are told by their beginning
Inputs = Mapping[str, Sequence[InputFile]]


class ChangedPart(Value):
    """A pinned part that differs: what it ``was`` when it was planned, and what it is ``now``; `NOTHING` where there was none."""

    part: str
    was: str
    now: str
    files: str = ""  # of a source: which of its files, in words

    @property
    def may_be_accepted(self) -> bool:
        """Whether a run may go on in spite of it."""
        return self.part.startswith(LIBRARY) and NOTHING not in {self.was, self.now}

    def problem(self) -> Problem:
        """As an error lists it."""
        what = f"was {_short(self.was)}, is {_short(self.now)}"
        return Problem(where=self.part, what=f"{what}: {self.files}" if self.files else what)


class Accepted(Value):
    """A change that ``by`` accepted. ``mixed``: the run goes on with it, so its attempts from then on are not of one world.

    ``at`` is the database's clock's, and None before it stands there.
    """

    part: str
    was: str
    now: str
    by: str
    mixed: bool
    at: datetime | None = None

    @property
    def entry(self) -> str:
        """The change, as the audit trail has it."""
        return f"{self.part}: {self.was} → {self.now}"

    @property
    def told(self) -> str:
        """As ``library numpy 2.1.0 → 2.2.0, accepted by anna@host``."""
        return f"{self.part} {self.was} → {self.now}, accepted by {self.by}"


def changes(pinned: Mapping[str, str], inputs: Inputs, made: Plan) -> tuple[ChangedPart, ...]:
    """Every part in which ``made`` differs from what was ``pinned`` and read before, by name."""
    return tuple(
        ChangedPart(
            part=part,
            was=pinned.get(part, NOTHING),
            now=made.pinned.get(part, NOTHING),
            files=_files(inputs, made.inputs, part.removeprefix(SOURCE)) if part.startswith(SOURCE) else "",
        )
        for part in sorted(made.pinned.keys() | pinned.keys())
        if pinned.get(part) != made.pinned.get(part)
    )


def left(found: Iterable[ChangedPart], accepted: Iterable[Accepted]) -> tuple[ChangedPart, ...]:
    """The changes that nobody has accepted yet: an acceptance speaks of one value, and not of the next."""
    covered = {(one.part, one.now) for one in accepted}
    return tuple(change for change in found if (change.part, change.now) not in covered)


def accept(
    found: Sequence[ChangedPart], names: Iterable[str], known: Iterable[str], *, by: str, mixed: bool
) -> tuple[Accepted, ...]:
    """Those of the changes that ``names`` speak of, accepted; of a library that is as it was, nothing. "library" may be left out.

    Raises:
        Refused: ``not_acceptable``: a name is of no part, or of one whose change makes another run; all of them are told.
    """
    by_part = {change.part: change for change in found}
    known = {*known, *by_part}
    problems: list[Problem] = []
    accepted: list[Accepted] = []
    for name in dict.fromkeys(names):
        part = name if name in known else f"{LIBRARY}{name}"
        change = by_part.get(part)
        if part not in known:
            problems.append(Problem(where=name, what="is no part of the plan", remedy="name one as the refusal lists it"))
        elif not part.startswith(LIBRARY) or (change is not None and not change.may_be_accepted):
            problems.append(Problem(where=part, what="decides what is scored and flagged: with another one it is another run"))
        elif change is not None:
            accepted.append(Accepted(part=part, was=change.was, now=change.now, by=by, mixed=mixed))
    if problems:
        raise Refused(
            "not_acceptable",
            "only other versions of libraries, and of batchscore itself, can be accepted",
            where="--accept",
            problems=tuple(problems),
            remedy="put the part back, or run the spec as it is now: batchscore plan SPEC",
        )
    return tuple(accepted)


def refuse(found: Sequence[ChangedPart], *, what: str, where: str, command: str, otherwise: str) -> None:
    """Raise Refused ``plan_changed`` naming each change, if there are any. ``command``: to which --accept may be added."""
    if not found:
        return
    may = " ".join(f"--accept {change.part.removeprefix(LIBRARY)}" for change in found)
    remedy = f"put it back, or accept it by name: {command} {may}" if all(one.may_be_accepted for one in found) else otherwise
    parts = ", ".join(change.part for change in found)
    problems = tuple(change.problem() for change in found)
    raise Refused("plan_changed", f"{what}: {parts}", where=where, problems=problems, remedy=remedy)


def _files(before: Inputs, now: Inputs, table: str) -> str:
    """Which files of a table are new, gone, or not what they were; a live table has none."""
    old, new = ({file.path: file for file in inputs.get(table, ())} for inputs in (before, now))
    groups = (
        ("changed", sorted(path for path in old.keys() & new.keys() if old[path] != new[path])),
        ("gone", sorted(old.keys() - new.keys())),
        ("new", sorted(new.keys() - old.keys())),
    )
    return "; ".join(f"{len(paths)} file(s) {word}, such as {', '.join(paths[:MAX_FILES])}" for word, paths in groups if paths)


def _short(value: str) -> str:
    return value if len(value) <= _SHORT else value[:12]
