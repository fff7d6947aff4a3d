"""Sweeps: which plan is a sweep of which spec at which as-of. How far a spec has come follows from the runs of these plans."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from batchscore.command import command
from batchscore.driver import is_gone
from batchscore.errors import Refused, TryAgain
from batchscore.plan import Plan
from batchscore.ports import SweepRow
from batchscore.store.rows import RowsOf, from_microseconds, microseconds, moment
from batchscore.store.tables import runs, sweeps


def put_sweep(connection: sa.Connection, plan: Plan, now: sa.ColumnElement[Any]) -> None:
    """Let the plan be the sweep of its spec at its last as-of; done twice it is done once.

    Raises:
        Refused: ``run_taken``: a driver is at another plan of that spec for the same as-of.
        TryAgain: ``commit_conflict``: another driver began it in between.
    """
    as_of = microseconds(plan.spec.as_ofs()[-1])
    of_as_of = (sweeps.c.name == plan.spec.name) & (sweeps.c.as_of == as_of)
    query = (
        sa.select(runs.c.run_id, runs.c.lease_owner)
        .join(sweeps, sweeps.c.plan_digest == runs.c.plan_digest)
        .where(of_as_of, sweeps.c.plan_digest != plan.digest, runs.c.state == "running", runs.c.lease_until >= now)
    )
    for row in connection.execute(query):
        if not is_gone(row.lease_owner):
            raise Refused(
                "run_taken",
                f"{row.lease_owner} is sweeping this as-of already, with other inputs or policy",
                where=f"run {row.run_id}",
                remedy=f"watch it: {command('watch', row.run_id, plan.spec.store)}",
            )
    known = connection.execute(sa.select(sweeps).where(of_as_of, sweeps.c.plan_digest == plan.digest)).first()
    if known is None:
        begun = {"name": plan.spec.name, "as_of": as_of, "plan_digest": plan.digest, "begun_at": now}
        try:
            connection.execute(sweeps.insert().values(begun))
        except sa.exc.IntegrityError:
            raise TryAgain("commit_conflict", "another driver began this sweep just now", where=plan.spec.name) from None


def sweeps_of(rows_of: RowsOf, name: str) -> tuple[SweepRow, ...]:
    """Sweeps of a spec and their runs, by as-of, then by when the run was made."""
    query = (
        sa.select(sweeps.c.as_of, sweeps.c.plan_digest, runs.c.run_id, runs.c.state, runs.c.released_at)
        .select_from(sweeps.outerjoin(runs, runs.c.plan_digest == sweeps.c.plan_digest))
        .where(sweeps.c.name == name)
        .order_by(sweeps.c.as_of, runs.c.created_at, runs.c.generation)
    )
    return tuple(
        SweepRow(
            as_of=from_microseconds(row["as_of"]),
            plan_digest=row["plan_digest"],
            run_id=row["run_id"],
            state=row["state"],
            released_at=moment(row["released_at"]),
        )
        for row in rows_of(query)
    )
