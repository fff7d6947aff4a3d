"""Deletes what no run refers to: files of attempts that lost, were given up, or whose driver died before the commit."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa

from batchscore.database import read
from batchscore.failpoints import Point, reach
from batchscore.plan import Stage
from batchscore.store.tables import run_outputs


class Cleaner:
    """Finds, and on request deletes, unreferenced files of a store."""

    def __init__(self, engine: sa.Engine, folder: Path) -> None:
        self._engine = engine
        self._folder = folder

    def clean(self, *, grace: timedelta, apply: bool) -> tuple[Path, ...]:
        """Files in the stage folders that no run refers to and that are older than ``grace``; deleted with ``apply``.

        The grace period is what protects an attempt under way: its file is there before its receipt is committed. It is
        compared with file times, so it must be longer than any attempt, and than the clocks of the hosts differ.
        """
        limit = time.time() - grace.total_seconds()
        query = sa.select(run_outputs.c.path)
        referenced = set(read(self._engine, lambda connection: connection.execute(query).scalars().all(), where="store"))
        found = []
        for stage in Stage:
            for path in sorted((self._folder / stage.value).rglob("*")):
                name = path.relative_to(self._folder).as_posix()
                if path.is_file() and name not in referenced and path.stat().st_mtime < limit:
                    found.append(path)
                    if apply:
                        path.unlink(missing_ok=True)
                        reach(Point.CLEAN_DELETED)
        return tuple(found)
