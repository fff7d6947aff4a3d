"""Holds: what a guard found in a run, under the digest of its findings, and who approved exactly that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from batchscore.audit import Act
from batchscore.command import command
from batchscore.errors import Refused
from batchscore.hold import Finding, HoldRow, Subject, findings_digest
from batchscore.ports import RunHandle
from batchscore.store.audit import AuditTrail, Done
from batchscore.store.rows import FINDINGS, RowsOf, hold_row
from batchscore.store.tables import holds, runs

_APPROVALS: Final = 100  # of a spec that are remembered, the newest: each may speak of many days


def put_hold(connection: sa.Connection, run: RunHandle, subject: Subject, findings: Sequence[Finding], at: float) -> HoldRow:
    """Let these findings hold the run, at that moment (seconds since 1970). The same findings are the same hold."""
    this = _is_hold(run.run_id, subject, findings_digest(findings))
    if connection.execute(holds.update().where(this).values(held_at=at)).rowcount != 1:
        text = FINDINGS.dump_json(tuple(findings)).decode()
        new = {"run_id": run.run_id, "subject": subject, "digest": findings_digest(findings), "findings": text, "held_at": at}
        connection.execute(holds.insert().values(**new))
    return _hold(connection, this)


class Approval:
    """One transaction: a person approves exactly that hold, and other findings hold again.

    The run's row is locked first, as by every driver: a run that is held anew meanwhile is not approved unseen.
    """

    def __init__(self, hold: HoldRow, *, by: str, because: str, now: sa.ColumnElement[Any], trail: AuditTrail) -> None:
        self._run_id = hold.run_id
        self._this = _is_hold(hold.run_id, hold.subject, hold.digest)
        self._said = {"approved_by": by, "approved_because": because}
        self._now = now
        self._trail = trail

    def __call__(self, connection: sa.Connection) -> HoldRow:
        """The hold as it then stands.

        Raises:
            Refused: ``not_held``: the run is not held, not for this any more, or this was approved before.
        """
        state = self._locked_state(connection)
        if state != "held":
            raise self._not_held(f"the run is {state}")
        newest = sa.select(sa.func.max(holds.c.held_at)).where(holds.c.run_id == self._run_id).scalar_subquery()
        latest = connection.execute(sa.select(holds.c.held_at == newest).where(self._this)).scalar_one_or_none()
        if not latest:
            raise self._not_held("the run is held for something else by now")
        approved = holds.update().where(self._this, holds.c.approved_at.is_(None)).values(**self._said, approved_at=self._now)
        if connection.execute(approved).rowcount != 1:
            first = connection.execute(sa.select(holds.c.approved_by).where(self._this)).scalar_one()
            raise self._not_held(f"{first} has approved this already")
        held = _hold(connection, self._this)
        by = self._said["approved_by"]
        self._trail.append(connection, [Done(act=Act.APPROVED, who=by, run_id=self._run_id, detail=held.entry)])
        return held

    def _not_held(self, what: str) -> Refused:
        return Refused(
            "not_held",
            f"nothing was approved: {what}",
            where=f"run {self._run_id}",
            remedy=f"look how it stands: {command('status', self._run_id, self._trail.folder)}",
        )

    def landed(self, connection: sa.Connection) -> bool:
        """Whether it stands after a COMMIT without an answer."""
        self._locked_state(connection)
        mine = (holds.c.approved_by == self._said["approved_by"]) & (holds.c.approved_because == self._said["approved_because"])
        return connection.execute(sa.select(holds.c.digest).where(self._this, mine)).first() is not None

    def _locked_state(self, connection: sa.Connection) -> str:
        of_run = sa.select(runs.c.state).where(runs.c.run_id == self._run_id).with_for_update()
        return str(connection.execute(of_run).scalar_one())


def holds_of(rows_of: RowsOf, run_id: str) -> tuple[HoldRow, ...]:
    """What the run was held for, in order of time."""
    query = sa.select(holds).where(holds.c.run_id == run_id).order_by(holds.c.held_at, holds.c.digest)
    return tuple(map(hold_row, rows_of(query)))


def approved_findings(rows_of: RowsOf, name: str, subject: Subject) -> tuple[Finding, ...]:
    """What people approved of that subject in the runs of the spec of that name, the newest approvals first."""
    query = (
        sa.select(holds)
        .join(runs, runs.c.run_id == holds.c.run_id)
        .where(runs.c.name == name, holds.c.subject == subject, holds.c.approved_at.is_not(None))
        .order_by(holds.c.approved_at.desc(), holds.c.run_id)
        .limit(_APPROVALS)
    )
    return tuple(finding for row in rows_of(query) for finding in hold_row(row).findings)


def _is_hold(run_id: str, subject: str, digest: str) -> sa.ColumnElement[bool]:
    return (holds.c.run_id == run_id) & (holds.c.subject == subject) & (holds.c.digest == digest)


def _hold(connection: sa.Connection, this: sa.ColumnElement[bool]) -> HoldRow:
    return hold_row(connection.execute(sa.select(holds).where(this)).mappings().one())
