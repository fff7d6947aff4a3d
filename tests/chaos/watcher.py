"""A reader of the review view, 50 times a second through every kill: it must never see a flag of a run that is not released."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import sqlalchemy as sa

from batchscore.errors import BatchscoreError
from batchscore.store.place import engine_of

EVERY_S: Final = 1 / 50
# One statement, so one moment: flags that the view shows, and of those the ones it must not.
_LOOK: Final = sa.text(
    "SELECT COUNT(*), COALESCE(SUM(r.released_at IS NULL OR r.undo_begun_at IS NOT NULL), 0)"
    " FROM review_queue q JOIN runs r ON r.run_id = q.run_id"
)


class Watcher:
    """Looks at a store from a thread of its own while the block lasts; ``n_looks`` and ``n_seen_early`` say what came of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.n_looks = 0
        self.n_seen_early = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        assert self.n_seen_early == 0, "a reviewer saw flags of a run that is not released"

    def _look(self) -> None:
        while not self._over.wait(EVERY_S):
            try:
                engine = engine_of(self._folder, read_only=True)
                with engine.connect() as connection:
                    _, early = connection.execute(_LOOK).one()
                engine.dispose()
            except (sa.exc.DBAPIError, BatchscoreError):
                continue  # no store yet, or the server was killed
            self.n_looks += 1
            self.n_seen_early += int(early)
