"""What was accepted of a run whose libraries are other versions than its plan pins: a row for each, and an entry in the trail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import RowMapping

from batchscore.acceptance import Accepted
from batchscore.audit import Act
from batchscore.ports import RunHandle
from batchscore.store.audit import AuditTrail, Done
from batchscore.store.rows import RowsOf, moment
from batchscore.store.tables import acceptances


def put_accepted(
    connection: sa.Connection, run: RunHandle, accepted: Sequence[Accepted], trail: AuditTrail, now: sa.ColumnElement[Any]
) -> None:
    """Let them stand, under the driver's epoch; what stands already is left as it is."""
    held = sa.select(acceptances.c.part, acceptances.c.became).where(acceptances.c.run_id == run.run_id)
    standing = {(row.part, row.became) for row in connection.execute(held)}
    new = [one for one in accepted if (one.part, one.now) not in standing]
    for one in new:
        row = {"run_id": run.run_id, "part": one.part, "became": one.now, "was": one.was, "accepted_by": one.by}
        connection.execute(acceptances.insert().values(**row, accepted_at=now, from_epoch=run.epoch if one.mixed else None))
    trail.append(connection, [Done(act=Act.ACCEPTED, who=one.by, run_id=run.run_id, detail=one.entry) for one in new])


def accepted_of(rows_of: RowsOf, run_id: str) -> tuple[Accepted, ...]:
    """What was accepted of the run that its plan pins otherwise, in order of time."""
    query = sa.select(acceptances).where(acceptances.c.run_id == run_id)
    return tuple(map(_accepted, rows_of(query.order_by(acceptances.c.accepted_at, acceptances.c.part))))


def _accepted(row: RowMapping) -> Accepted:
    return Accepted(
        part=row["part"],
        was=row["was"],
        now=row["became"],
        by=row["accepted_by"],
        mixed=row["from_epoch"] is not None,
        at=moment(row["accepted_at"]),
    )
