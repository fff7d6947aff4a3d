"""Ways to cut an upgrade of a store's tables between two statements, on either database.

As a program (`python -m tests.contract.store.upgrades_cut FOLDER EVERY`) it kills an upgrade on SQLite after each EVERY-th of its
statements, a process each, goes on, and writes ``KILLS SAME``: how many, and after how many the tables were those of a clean one.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from batchscore.database import open_engine
from batchscore.store import DATABASE, open_store
from batchscore.store.schema import revision_of

CHANGES = ("CREATE", "ALTER", "DROP", "RENAME", "INSERT", "UPDATE")
DATA = ("INSERT", "UPDATE")


@contextmanager
def watched(done: Callable[[sa.Connection, str], None]) -> Iterator[None]:
    """Calls ``done`` after each statement that changed something, on any engine of this process."""

    def heard(connection: sa.Connection, _cursor: Any, statement: str, *_others: Any) -> None:
        if statement.lstrip().upper().startswith(CHANGES):
            done(connection, statement)

    sa.event.listen(sa.Engine, "after_cursor_execute", heard)
    try:
        yield
    finally:
        sa.event.remove(sa.Engine, "after_cursor_execute", heard)


class Counter:
    """Calls ``cut`` once ``after`` statements are done; with ``only_ddl``, of those that commit by themselves on MySQL."""

    def __init__(self, cut: Callable[[sa.Connection], None], after: int | None, *, only_ddl: bool = False) -> None:
        self.n = 0
        self._cut, self._after, self._only_ddl = cut, after, only_ddl

    def __call__(self, connection: sa.Connection, statement: str) -> None:
        if not (self._only_ddl and statement.lstrip().upper().startswith(DATA)):
            self.n += 1
            if self.n == self._after:
                self._cut(connection)


def main(folder: Path, every: int) -> None:
    """See above."""
    counter = Counter(lambda _: None, None)
    with watched(counter):
        open_store(folder / "clean", "integer")
    clean = tables_of(folder / "clean")
    cuts = range(1, counter.n + 1, every)
    same = 0
    for n in cuts:
        store = folder / str(n)
        if (child := os.fork()) == 0:
            with watched(Counter(lambda _: os.kill(os.getpid(), signal.SIGKILL), n)):
                open_store(store, "integer")
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), f"not killed after {n}"
        with open_engine(f"sqlite:///{store / DATABASE}").connect() as connection:
            assert revision_of(connection) is None, f"something stands after {n}"
        open_store(store, "integer")
        same += tables_of(store) == clean
    sys.stdout.write(f"{len(cuts)} {same}\n")


def tables_of(store: Path) -> list[tuple[str, str]]:
    with open_engine(f"sqlite:///{store / DATABASE}").connect() as connection:
        found = connection.execute(sa.text("SELECT name, sql FROM sqlite_master ORDER BY type, name"))
        return [(row.name, row.sql) for row in found]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
