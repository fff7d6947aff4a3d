"""Holds a plan to the one that somebody approved: by its file, or by its hash where the store knows a run of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ValidationError

from batchscore.acceptance import Accepted, Inputs, accept, changes, left, refuse
from batchscore.command import word
from batchscore.digest import digest_of
from batchscore.errors import Refused
from batchscore.plan import InputFile, Plan
from batchscore.store import open_reader

MIN_HASH: Final = 8
_HASH: Final = re.compile(rf"[0-9a-f]{{{MIN_HASH},64}}")


class _Printed(BaseModel):
    """What is needed of what `batchscore plan SPEC --json` prints."""

    digest: str
    pinned: dict[str, str]
    inputs: dict[str, tuple[InputFile, ...]]


def hold_to(made: Plan, approved: str, spec: str, *, accepts: Sequence[str] = (), by: str = "") -> tuple[Accepted, ...]:
    """What of the plan differs from the ``approved`` one and is accepted in the name of ``by``; ``spec``: its path, as typed.

    ``approved``: a file that `plan --json` printed, or the beginning of a hash.

    Raises:
        Refused: ``plan_changed``, naming each part that differs where the approved plan is at hand; ``not_acceptable``;
            ``plan_unreadable``: the file is no plan, or was edited.
    """
    if _HASH.fullmatch(approved) and made.digest.startswith(approved):
        return accept((), accepts, made.pinned, by=by, mixed=False)
    pinned, inputs = _planned(made, approved, spec)
    found = changes(pinned, inputs, made)
    accepted = accept(found, accepts, made.pinned, by=by, mixed=False)
    refuse(
        left(found, accepted),
        what="changed since that plan was approved",
        where=f"run {made.spec.name}",
        command=f"batchscore run {word(spec)} --plan {word(approved)}",
        otherwise=f"put it back; or look at the plan as it is now (batchscore plan {word(spec)}), then approve that",
    )
    return accepted


def _planned(made: Plan, approved: str, spec: str) -> tuple[dict[str, str], Inputs]:
    path = Path(approved)
    if path.is_file():
        return _read(path)
    if _HASH.fullmatch(approved):
        try:
            row = open_reader(Path(made.spec.store)).newest_of_plan(approved)
        except Refused:  # no store yet, or one of another version: it cannot help
            row = None
        if row is not None:
            return row.plan.pinned, row.plan.inputs
    raise Refused(
        "plan_changed",
        f"the plan is now {made.digest[:12]}, not the one that was approved; no run of that one is known here, so what differs "
        "cannot be named",
        where=f"run {made.spec.name}",
        remedy=f"look at what changed (batchscore plan {word(spec)}), then approve that hash; "
        f"a plan that is kept (batchscore plan {word(spec)} --json > plan.json) can be given in place of its hash, and names it",
    )


def _read(path: Path) -> tuple[dict[str, str], Inputs]:
    try:
        printed = _Printed.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        printed = None
    if printed is None or digest_of(printed.pinned) != printed.digest:
        what = (
            "it is not what batchscore plan --json prints"
            if printed is None
            else "it was edited: its hash is not that of its parts"
        )
        raise Refused("plan_unreadable", what, where=str(path), remedy="batchscore plan SPEC --json > plan.json")
    return printed.pinned, printed.inputs
