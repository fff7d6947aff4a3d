"""Control of a run from any host: a person's wish goes into the run's row, and its driver, wherever it is, sees it there."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from batchscore.audit import mistake_of_name
from batchscore.command import command
from batchscore.errors import Refused
from batchscore.features.feature_set import FeatureSet
from batchscore.ports import RunRow, StoreReader
from batchscore.request import WHY_CHARS, Wish
from batchscore.store import open_reader, open_store
from batchscore.values import Value

SEEN_WITHIN_S: Final = 5.0  # how long is waited for a driver to say that it saw: it looks every second
_LOOK_EVERY_S: Final = 0.1


class Controlled(Value):
    """How the run stands after a request. ``driven``: a driver has it; ``seen_after_s``: when it said that it saw, None: not yet.

    ``changed``: the request is new; False when it stood already, or there was nothing to withdraw.
    """

    run_id: str
    stands: str
    changed: bool
    driven: bool
    seen_after_s: float | None = None
    told: str = ""


def ask(folder: Path, run_id: str, wish: Wish | None, *, by: str, why: str = "", wait_s: float = SEEN_WITHIN_S) -> Controlled:
    """Ask that the run rests (``paused``), ends (``cancelled``) or goes on (None), in the name of ``by``.

    Then wait up to ``wait_s`` for its driver to say that it saw. Asking for what stands already changes nothing.

    Raises:
        ValueError: ``by`` or ``why`` is nothing that could stand there.
        Refused: ``nothing_to_control``, ``run_unknown``, ``run_id_invalid`` or ``store_missing``.
    """
    if mistake := mistake_of(by, why):
        raise ValueError(mistake)
    reader = open_reader(folder)
    row = reader.run(run_id)
    standing = row.request
    if (standing.wish if standing else None) == wish and row.state != "finished":
        return _controlled(row, changed=False)
    if standing is not None and standing.wish == "cancelled":  # neither paused nor continued: it ends, or has ended
        raise Refused(
            "nothing_to_control",
            f"nothing was asked: the run is {standing.told}",
            where=f"run {run_id}",
            remedy=f"to go on after all: {command('resume', run_id, folder)}",
        )
    store = open_store(folder, FeatureSet.thaw(row.plan.feature_set).account_id)
    row = store.request(run_id, wish, number=row.n_requests, by=by, why=why)
    asked = time.monotonic()
    while _waits_for_driver(row) and time.monotonic() - asked < wait_s:
        time.sleep(_LOOK_EVERY_S)
        row = reader.run(run_id)
    seen = row.request.seen_at if row.request else None
    seen_after_s = None if seen is None or row.request is None else (seen - row.request.at).total_seconds()
    return _controlled(row, changed=True, seen_after_s=seen_after_s)


def withdraw_cancel(folder: Path, row: RunRow, *, by: str) -> None:
    """Let a cancelled run be gone on with, which is what `resume` asks; of any other, nothing. Raises as `ask`."""
    if row.request is not None and row.request.wish == "cancelled" and not _is_driven(row):
        store = open_store(folder, FeatureSet.thaw(row.plan.feature_set).account_id)
        store.request(row.run_id, None, number=row.n_requests, by=by, why="resumed")


def is_only_reported(row: RunRow, reader: StoreReader) -> bool:
    """Whether the run is over, and a later one of its plan was opened: a driver would take up, or report, that one.

    Raises:
        Refused: ``run_superseded``: the same, and it is not over.
    """
    newest = reader.runs_of_plan(row.plan_digest)[0]
    if newest.run_id == row.run_id:
        return False
    if row.state == "finished":
        return True
    verb = "status" if newest.state == "finished" else "resume"
    raise Refused(
        "run_superseded",
        f"{newest.run_id} was opened since, as the next run of the same plan (--again): this one is not gone on with",
        where=f"run {row.run_id}",
        remedy=f"look at that one, or go on with it: {command(verb, newest.run_id, row.plan.spec.store)}",
    )


def mistake_of(by: str, why: str) -> str:
    """What is wrong with a name and a reason, in words; empty for nothing."""
    if mistake := mistake_of_name(by, of="who asks"):
        return mistake
    if len(why) > WHY_CHARS or not (not why or why.isprintable()):
        return f"the reason has at most {WHY_CHARS:,} characters, on one line"
    return ""


def _is_driven(row: RunRow) -> bool:
    return row.state == "running" and not row.driver_gone


def _waits_for_driver(row: RunRow) -> bool:
    return _is_driven(row) and row.request is not None and row.request.seen_at is None


def _controlled(row: RunRow, *, changed: bool, seen_after_s: float | None = None) -> Controlled:
    return Controlled(
        run_id=row.run_id,
        stands=row.stands,
        changed=changed,
        driven=_is_driven(row),
        seen_after_s=seen_after_s,
        told=row.request.told if row.request else "",
    )
