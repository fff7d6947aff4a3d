"""Deletes what no run refers to: files of attempts that lost, were given up, or whose driver died before the commit."""

from __future__ import annotations

import json
import re
import time
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from stat import S_ISREG
from typing import Final

import sqlalchemy as sa

from batchscore.database import read
from batchscore.driver import is_gone
from batchscore.failpoints import Point, reach
from batchscore.plan import NAMED_BY_DIGEST, Stage
from batchscore.store.tables import partitions, run_outputs, runs

UNDER_WAY_S: Final = 86_400.0  # as long as nobody says otherwise, an attempt is taken to last less
CLOCKS_DIFFER_S: Final = 600.0  # of the database and of the hosts that write files, at most
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class Cleaner:
    """Finds, and on request deletes, unreferenced files of a store."""

    def __init__(self, engine: sa.Engine, folder: Path) -> None:
        self._engine = engine
        self._folder = folder

    def clean(self, *, grace: timedelta, apply: bool) -> tuple[Path, ...]:
        """Files that stages or drivers wrote, that no run refers to and that are older than ``grace``; deleted with ``apply``.

        The grace period is what protects an attempt, a layout or a decision under way: its file is there before its receipt, its
        partitions, or the run's row, are committed. It is compared with file times, so it must be longer than any attempt, and
        than the clocks of the hosts differ. So a shorter one than `UNDER_WAY_S` is not believed of files since a run that is
        under way was opened: any of them may be of its attempts, and what they wrote counts as soon as it is committed.
        """
        now = time.time()
        limit = now - grace.total_seconds()
        opened_at = read(self._engine, _opened_under_way, where="store")
        if opened_at is not None:
            limit = min(limit, max(opened_at - CLOCKS_DIFFER_S, now - UNDER_WAY_S))
        outputs = self._older(limit, *(stage.value for stage in Stage))
        drivers = self._older(limit, *NAMED_BY_DIGEST)
        referenced = read(self._engine, _outputs, where="store") if outputs else frozenset()
        named = read(self._engine, _digests, where="store") if drivers else frozenset()
        found = [path for path in outputs if path.relative_to(self._folder).as_posix() not in referenced]
        found += [path for path in drivers if path.stem not in named]
        if not apply:
            return tuple(found)
        deleted = []
        for path in found:
            if _is_older(path, limit):  # a driver may have taken an old one up meanwhile
                path.unlink(missing_ok=True)
                deleted.append(path)
                reach(Point.CLEAN_DELETED)
        return tuple(deleted)

    def _older(self, limit: float, *folders: str) -> list[Path]:
        paths = (path for folder in folders for path in sorted((self._folder / folder).rglob("*")))
        return [path for path in paths if _is_older(path, limit)]


def _is_older(path: Path, limit: float) -> bool:
    try:
        stat = path.stat()
    except FileNotFoundError:  # a temporary file that has its name by now
        return False
    return S_ISREG(stat.st_mode) and stat.st_mtime < limit


def _opened_under_way(connection: sa.Connection) -> float | None:
    """When the oldest of the runs that have a driver was opened (seconds since 1970); None: nobody is at any.

    A driver whose lease ran out is one still: it may only be slow, and what it commits counts until another takes its run.
    """
    query = sa.select(runs.c.created_at, runs.c.lease_owner).where(runs.c.state == "running")
    return min((row.created_at for row in connection.execute(query) if not is_gone(row.lease_owner)), default=None)


def _outputs(connection: sa.Connection) -> frozenset[str]:
    """Paths, relative to the store, of all that some run refers to."""
    return frozenset(connection.execute(sa.select(run_outputs.c.path)).scalars())


def _digests(connection: sa.Connection) -> frozenset[str]:
    """SHA-256 of all that runs name by it: in their plans, in their rows, in their partitions' work. Read a run at a time."""
    found: set[str] = set()
    for run_id in connection.execute(sa.select(runs.c.run_id)).scalars().all():
        of_run = runs.c.run_id == run_id
        row = connection.execute(sa.select(runs.c.plan, runs.c.decision_sha256, runs.c.memory_sha256).where(of_run)).one()
        found |= {row.decision_sha256, row.memory_sha256} - {None}
        found.add(sha256(json.loads(row.plan)["feature_set"].encode()).hexdigest())  # its partitions may not be laid out yet
        for work in connection.execute(sa.select(partitions.c.work).where(partitions.c.run_id == run_id)).scalars():
            found.update(_DIGEST.findall(work))
    return frozenset(found)
