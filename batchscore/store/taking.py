"""How a driver gets a run, made or taken over, and gives it back."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from batchscore.command import command
from batchscore.driver import is_gone
from batchscore.errors import Refused, TryAgain
from batchscore.plan import Plan
from batchscore.ports import RunHandle, RunRow
from batchscore.store.fencing import Lease
from batchscore.store.requests import refuse_requested
from batchscore.store.rows import moment, request_of, run_row
from batchscore.store.tables import runs

STATE_WHY_CHARS: Final = 2_000


def take_run(connection: sa.Connection, plan: Plan, owner: str, lease: Lease, *, again: bool) -> tuple[RunHandle, RunRow]:
    """The plan's run: made, or its newest generation taken over; a finished one is returned untaken.

    Done twice it takes what is its own, under a higher epoch. ``again``: the next generation of one that is over.

    Raises:
        Refused: ``run_taken``: another driver's lease has not run out.
        Paused, Cancelled: a person asked that the run should rest.
        TryAgain: another driver made this run in between.
    """
    # The next generation is counted before the newest is looked at: a run that another driver makes in between is
    # either seen, or has this number, and the second insert of it fails.
    generation = _next_generation(connection, plan)
    newest = _newest(connection, plan.digest)
    if newest is None or (again and newest["state"] in {"finished", "failed", "cancelled"}):
        run_id = _create(connection, plan, generation, lease)
    elif newest["state"] == "finished":
        return RunHandle(run_id=newest["run_id"], epoch=newest["epoch"], owner=owner, store=plan.spec.store), run_row(newest)
    else:
        run_id = newest["run_id"]
        refuse_requested(run_id, request_of(newest), plan.spec.store)
    _take(connection, run_id, owner, lease, plan.spec.store)
    row = row_of(connection, run_id)
    return RunHandle(run_id=run_id, epoch=row.epoch, owner=owner, store=plan.spec.store), row


def give_back(connection: sa.Connection, run: RunHandle, at: float, state: str, why: str) -> None:
    """Let the run be over, or rest, in that state from ``at`` on (seconds since 1970): its lease has run out."""
    finished = at if state == "finished" else None
    ended = {"state": state, "why": why[:STATE_WHY_CHARS], "finished_at": finished, "updated_at": at, "lease_until": at}
    connection.execute(runs.update().where(runs.c.run_id == run.run_id).values(**ended))


def row_of(connection: sa.Connection, run_id: str) -> RunRow:
    """The run as it stands inside the transaction."""
    return run_row(connection.execute(sa.select(runs).where(runs.c.run_id == run_id)).mappings().one())


def _newest(connection: sa.Connection, plan_digest: str) -> Any:
    query = sa.select(runs).where(runs.c.plan_digest == plan_digest).order_by(runs.c.generation.desc()).limit(1)
    return connection.execute(query).mappings().first()


def _next_generation(connection: sa.Connection, plan: Plan) -> int:
    """Generations count per id prefix, so that two plans with one prefix cannot share an id."""
    of_prefix = runs.c.run_id.startswith(_prefix(plan))
    return (connection.execute(sa.select(sa.func.max(runs.c.generation)).where(of_prefix)).scalar() or 0) + 1


def _create(connection: sa.Connection, plan: Plan, generation: int, lease: Lease) -> str:
    run_id = f"{_prefix(plan)}{generation}"
    at = float(connection.execute(sa.select(lease.now)).scalar_one())
    new = runs.insert().values(
        run_id=run_id, plan_digest=plan.digest, generation=generation, name=plan.spec.name,
        plan=plan.model_dump_json(by_alias=True), state="running", why="", epoch=0, lease_owner="", lease_until=0.0,
        created_at=at, updated_at=at,
    )  # fmt: skip
    try:
        connection.execute(new)
    except sa.exc.IntegrityError:  # another driver made it between our look and our insert: look again
        raise TryAgain("commit_conflict", "another driver opened this run just now", where=f"plan {plan.digest[:12]}") from None
    return run_id


def _take(connection: sa.Connection, run_id: str, owner: str, lease: Lease, store: str) -> None:
    """The one statement by which a driver gets a run: its epoch goes up if nobody else's lease is alive."""
    holder = connection.execute(sa.select(runs.c.lease_owner).where(runs.c.run_id == run_id)).scalar_one()
    mine = holder if is_gone(holder) else owner
    free = (runs.c.lease_until < lease.now) | (runs.c.lease_owner == mine) | (runs.c.state != "running")
    taken = runs.update().where(runs.c.run_id == run_id, runs.c.state != "finished", free)
    values = {"epoch": runs.c.epoch + 1, "lease_owner": owner, "lease_until": lease.until, "state": "running",
              "why": "", "updated_at": lease.now}  # fmt: skip
    if connection.execute(taken.values(**values)).rowcount != 1:
        row = connection.execute(sa.select(runs.c.lease_owner, runs.c.lease_until).where(runs.c.run_id == run_id)).one()
        raise Refused(
            "run_taken",
            f"{row.lease_owner} has this run until {moment(row.lease_until):%H:%M:%S} UTC",
            where=f"run {run_id}",
            remedy=f"watch it ({command('watch', run_id, store)}), or try again when its lease has run out",
        )


def _prefix(plan: Plan) -> str:
    return f"r-{plan.digest[:8]}-"
