"""The brake on reading a live source: looks at it once a second at most, and says or does what `gentle` decides.

The driver asks it before it hands out a partition, every attempt between two pages. A look takes a connection and gives it
back at once; in office hours and while a pause file exists the database is not even asked.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from batchscore.errors import Paused
from batchscore.sources.gentle import GO, Load, Ruling, judge, worse
from batchscore.spec import Gentle, SqlSource

LOOK_EVERY_S: Final = 1.0
PATIENCE_S: Final = 20.0  # of an attempt: beyond that it gives its worker back, and its range is read again later
CONNECTIONS_A_READ: Final = 3  # of an attempt: its own, and beside it the two of connectorx, or that of a look


class Brake:
    """Of one source; of none (Parquet), it never holds. ``held_s`` and ``worst_lag_s`` tell what happened so far.

    ``just_looked``: somebody did, and found nothing.
    """

    def __init__(
        self,
        source: SqlSource | None,
        *,
        just_looked: bool = False,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._source = source
        self._clock = clock
        self._ruling = GO
        self._looked_at = time.monotonic() if just_looked else float("-inf")
        self.held_s = 0.0
        self.worst_lag_s: float | None = None

    @property
    def source(self) -> SqlSource:
        """The source."""
        assert self._source is not None, "there is no source"
        return self._source

    @property
    def gentle(self) -> Gentle:
        """How its source is read; of no source, the defaults, which nothing asks for."""
        return self._source.gentle if self._source else Gentle()

    @property
    def most_reads(self) -> int | None:
        """How many attempts may read at a time, over the whole cluster; None: as many as there are workers.

        Theirs are the connections that are left once the driver's brake has its own.
        """
        return None if self._source is None else (self._source.gentle.connections - 1) // CONNECTIONS_A_READ

    def ruling(self) -> Ruling:
        """What to do now; looked at anew once a second. Of one wait the words stay what they were at its beginning.

        Raises:
            TryAgain: the database was away for a minute.
        """
        if self._source is not None and time.monotonic() - self._looked_at >= LOOK_EVERY_S:
            new = self._look(self._source)
            if new.cause != self._ruling.cause:
                self._ruling = new
            self._looked_at = time.monotonic()
        return self._ruling

    def let_through(self) -> None:
        """Return when the source may be read.

        Raises:
            Paused: ``source_paused`` after `PATIENCE_S`, ``source_overloaded`` at once.
            TryAgain: the database was away for a minute.
        """
        ruling = self.ruling()
        if ruling.move == "wait":
            ruling = self._waited()
        if ruling.move != "go":
            raise paused(ruling)

    def _waited(self) -> Ruling:
        began = time.monotonic()
        while (ruling := self.ruling()).move == "wait" and time.monotonic() - began < PATIENCE_S:
            time.sleep(LOOK_EVERY_S / 10)
        self.held_s += time.monotonic() - began
        return ruling

    def _look(self, source: SqlSource) -> Ruling:
        gentle, at = source.gentle, self._clock()
        flag = f"the file {gentle.pause_file}" if gentle.pause_file and Path(gentle.pause_file).exists() else ""
        ruling = judge(Load(flag=flag), gentle, at)
        if ruling.move != "go":
            return ruling
        from batchscore.sources.load import load_of  # noqa: PLC0415 (SQLAlchemy: a worker that reads Parquet does without)

        load = load_of(source)
        if load.lag_s is not None and math.isfinite(load.lag_s):
            self.worst_lag_s = worse(self.worst_lag_s, load.lag_s)
        return judge(load, gentle, at)


NO_BRAKE: Final = Brake(None)


def paused(ruling: Ruling) -> Paused:
    """The error that ends a run, or gives an attempt back, for what was decided."""
    if ruling.move == "end":
        return Paused("source_overloaded", ruling.reason, where="freeze", remedy="see what the server is busy with")
    return Paused("source_paused", f"waited for a live source: {ruling.reason}", where="freeze")
