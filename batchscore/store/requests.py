"""What people ask of a run: their part of its row, compared and set under the row's lock, and in the audit trail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from batchscore.audit import Act
from batchscore.command import command
from batchscore.driver import is_gone
from batchscore.errors import Cancelled, Paused, Refused
from batchscore.request import Request, Wish
from batchscore.store.audit import AuditTrail, Done
from batchscore.store.tables import runs

COLUMNS: Final = (
    runs.c.state,
    runs.c.requested_state,
    runs.c.request_number,
    runs.c.requested_by,
    runs.c.requested_why,
    runs.c.requested_at,
    runs.c.request_seen_at,
    runs.c.request_met_at,
)
_ACTS: Final = {"paused": Act.PAUSED, "cancelled": Act.CANCELLED, None: Act.CONTINUED}


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """Who asks for what; None withdraws what was asked. ``number``: of the newest request that they saw (0: none yet)."""

    wish: Wish | None
    number: int
    by: str
    why: str


def put_request(connection: sa.Connection, run_id: str, ask: Ask, trail: AuditTrail, now: sa.ColumnElement[Any]) -> None:
    """Let the request stand. Of a run that nobody drives it is met at once; a driver that is not quite dead is fenced thereby.

    Raises:
        Refused: ``nothing_to_control``: the run is over, or somebody asked for something else meanwhile.
    """
    of_run = runs.c.run_id == run_id
    row = connection.execute(sa.select(runs, (runs.c.lease_until < now).label("lapsed")).where(of_run).with_for_update())
    held = row.mappings().one()
    if held["state"] == "finished":
        raise _nothing(run_id, "the run is finished", f"take its flags back: {command('undo', run_id, trail.folder)}")
    if held["request_number"] != ask.number:
        look = f"look how it stands: {command('status', run_id, trail.folder)}"
        raise _nothing(run_id, f"{held['requested_by']} was first, just now", look)
    driven = held["state"] == "running" and not held["lapsed"] and not is_gone(held["lease_owner"])
    at = connection.execute(sa.select(now)).scalar_one()
    values: dict[str, Any] = {
        "requested_state": ask.wish or "",
        "request_number": ask.number + 1,
        "requested_by": ask.by,
        "requested_why": ask.why,
        "requested_at": at,
        "request_seen_at": None,
        "request_met_at": at if ask.wish and not driven else None,
    }
    if not driven and (state := _state_after(ask.wish, held["state"])) != held["state"]:
        values |= {"state": state, "why": "", "lease_until": at, "updated_at": at}
    connection.execute(runs.update().where(of_run).values(**values))
    trail.append(connection, [Done(act=_ACTS[ask.wish], who=ask.by, run_id=run_id, detail=ask.why)])


def landed(connection: sa.Connection, run_id: str, ask: Ask) -> bool:
    """Whether a request whose COMMIT got no answer stands."""
    columns = (runs.c.requested_state, runs.c.request_number, runs.c.requested_by)
    found = connection.execute(sa.select(*columns).where(runs.c.run_id == run_id).with_for_update()).one()
    return tuple(found) == (ask.wish or "", ask.number + 1, ask.by)


def refuse_requested(run_id: str, request: Request | None, store: str) -> None:
    """Raise unless nobody asked that the run should rest.

    Raises:
        Paused: ``run_paused``.
        Cancelled: ``run_cancelled``.
    """
    if request is None:
        return
    where = f"run {run_id}"
    if request.wish == "paused":
        remedy = f"let it go on: {command('continue', run_id, store)}; then: {command('resume', run_id, store)}"
        raise Paused("run_paused", f"the run is {request.told}", where=where, remedy=remedy)
    remedy = f"to go on after all: {command('resume', run_id, store)}; as a new run: --again"
    raise Cancelled("run_cancelled", f"the run is {request.told}", where=where, remedy=remedy)


def _state_after(wish: Wish | None, state: str) -> str:
    """Of a run that nobody drives: a held or failed one stays what it is while it is paused, since an approval asks for that."""
    if wish == "cancelled":
        return "cancelled"
    if wish == "paused":
        return "paused" if state == "running" else state
    return "interrupted" if state in {"paused", "cancelled"} else state


def _nothing(run_id: str, what: str, remedy: str) -> Refused:
    return Refused("nothing_to_control", f"nothing was asked: {what}", where=f"run {run_id}", remedy=remedy)
