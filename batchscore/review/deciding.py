"""Decisions from a file or table, taken whole: looked at before anything is written, each mistake told with its row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from batchscore.desk import Opinion
from batchscore.errors import Problem, Refused
from batchscore.store import ReviewDesk, open_desk
from batchscore.values import Value

_MOST_SHOWN = 1_000


class Imported(Value):
    """queue import, queue decide: how many decisions were read, and how many of them said something new."""

    n_read: int
    n_new: int
    checked_only: bool = False


def take(folder: Path, opinions: Sequence[Opinion], rows: Sequence[int], where: str, *, check: bool, source: str) -> Imported:
    """Check all decisions as things stand, then record them; with ``check`` record none.

    Repeatable: what was taken before is not taken again. Beyond ten thousand they are recorded so many at a time, so a person who
    is quicker than the rest of the file makes that rest refused; the refusal says how many stand before it.

    Raises:
        Refused: ``dispositions_invalid``, with each decision that does not stand, by its row.
    """
    desk = open_desk(folder)
    mistakes = desk.check(opinions)
    if mistakes:
        _refuse([(rows[position], refusal) for position, refusal in mistakes], where)
    n_new = 0 if check else _record(desk, opinions, rows, where, source)
    return Imported(n_read=len(opinions), n_new=n_new, checked_only=check)


def _record(desk: ReviewDesk, opinions: Sequence[Opinion], rows: Sequence[int], where: str, source: str) -> int:
    try:
        return desk.decide(opinions, source=source, name=lambda position: f"row {rows[position]}")
    except Refused as refusal:
        if refusal.reason == "dispositions_invalid":
            raise Refused(refusal.reason, refusal.what, where=where, problems=refusal.problems[:_MOST_SHOWN]) from None
        if len(opinions) == 1:
            _refuse([(rows[0], refusal)], where)
        raise


def _refuse(mistakes: Sequence[tuple[int, Refused]], where: str) -> None:
    problems = tuple(
        Problem(where=f"row {row}", what=f"{refusal.code} {refusal.reason}: {refusal.what}", remedy=refusal.remedy)
        for row, refusal in mistakes[:_MOST_SHOWN]
    )
    what = f"{len(mistakes):,} decision(s) do not stand; none was taken"
    raise Refused("dispositions_invalid", what, where=where, problems=problems)
