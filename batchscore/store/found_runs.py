"""Runs, found by id, by the name of their spec, or by their plan."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from batchscore.command import word
from batchscore.errors import Refused
from batchscore.ports import RunRow
from batchscore.store.rows import RowsOf, run_row
from batchscore.store.tables import runs

RUN_ID: Final = re.compile(r"r-[0-9a-f]{8}-[1-9][0-9]{0,8}")


class FoundRuns:
    """Looks runs up in a store; ``now``, the database's clock, says whose leases have run out."""

    def __init__(self, rows_of: RowsOf, now: sa.ColumnElement[Any], folder: Path) -> None:
        self._rows_of = rows_of
        self._all = sa.select(runs, (runs.c.lease_until < now).label("lapsed"))
        self._newest_first = self._all.order_by(runs.c.created_at.desc(), runs.c.run_id)
        self._folder = folder

    def of_id(self, run_id: str) -> RunRow:
        """That run. Raises Refused ``run_unknown`` or ``run_id_invalid``."""
        remedy = f"batchscore status --store {word(self._folder)} lists the runs"
        if not RUN_ID.fullmatch(run_id):
            raise Refused("run_id_invalid", "a run id looks like r-1a2b3c4d-1", remedy=remedy)
        row = self._first(self._all.where(runs.c.run_id == run_id))
        if row is None:
            raise Refused("run_unknown", f"there is no run {run_id} in this store", remedy=remedy)
        return row

    def newest(self, limit: int) -> tuple[RunRow, ...]:
        """The newest first."""
        return self._found(self._newest_first.limit(limit))

    def of_spec(self, name: str, limit: int) -> tuple[RunRow, ...]:
        """Those of the spec of that name, however they ended, the newest first."""
        return self._found(self._newest_first.where(runs.c.name == name).limit(limit))

    def released(self, name: str, limit: int) -> tuple[RunRow, ...]:
        """Those of the spec of that name that are released and not undone, the newest first."""
        standing = (runs.c.name == name) & runs.c.released_at.is_not(None) & runs.c.undo_begun_at.is_(None)
        return self._found(self._newest_first.where(standing).limit(limit))

    def newest_finished(self, name: str) -> RunRow | None:
        """The finished run of the spec of that name that was opened last."""
        return self._first(self._finished(name))

    def before(self, row: RunRow) -> RunRow | None:
        """The newest finished run of the same spec name that was opened before this one."""
        this = sa.select(runs.c.created_at).where(runs.c.run_id == row.run_id).scalar_subquery()
        return self._first(self._finished(row.name).where(runs.c.run_id != row.run_id, runs.c.created_at <= this))

    def of_plan(self, plan_digest: str) -> tuple[RunRow, ...]:
        """All generations of a plan, the newest first."""
        return self._found(self._all.where(runs.c.plan_digest == plan_digest).order_by(runs.c.generation.desc()))

    def newest_of_plan(self, prefix: str) -> RunRow | None:
        """The newest run whose plan's digest begins so; ``prefix``: hex digits."""
        of_prefix = runs.c.plan_digest.startswith(prefix, autoescape=True)
        return self._first(self._all.where(of_prefix).order_by(runs.c.created_at.desc()))

    def _finished(self, name: str) -> sa.Select[Any]:
        finished = self._all.where(runs.c.name == name, runs.c.state == "finished")
        return finished.order_by(runs.c.created_at.desc(), runs.c.generation.desc())

    def _found(self, query: sa.Select[Any]) -> tuple[RunRow, ...]:
        return tuple(map(run_row, self._rows_of(query)))

    def _first(self, query: sa.Select[Any]) -> RunRow | None:
        found = self._found(query.limit(1))
        return found[0] if found else None
