"""The store: runs, progress, receipts and flags in one database (SQLite, or MySQL by name), and the folder of the outputs.

Three classes are the ports: `ledger` for drivers, `reader` and `desk` for people. Each transaction, or question, is in a module
of its subject.

| module | what it does |
|---|---|
| `ledger`, `fencing` | what a driver writes, and under which epoch |
| `taking`, `laying_out`, `committing`, `counting` | of a driver: a run taken, a stage laid out, receipts, failures |
| `holding`, `accepting`, `sweeping` | of a driver: holds, other versions accepted, which plan is a sweep |
| `flags`, `inserting`, `kept_back` | of a driver: a release, a statement of it, whom people's newest rows keep back |
| `desk`, `claiming`, `deciding`, `expiring`, `suppressing` | what reviewers write |
| `undo`, `withdrawing` | a run's flags taken back, and what that is at one account |
| `turning` | what other runs' evidence says once that is gone |
| `requests` | what people ask of a run |
| `audit`, `outbox` | the trail, and the events of flags: written with the change itself |
| `reader`, `found_runs`, `progress`, `held_flags`, `past`, `reviewed`, `told` | only read: runs, flags, memory, the desk |
| `tables`, `rows`, `paging` | the tables for queries; rows to values and back; many rows, a page at a time |
| `place`, `schema`, `preflight`, `grants` | where the database is; whether its tables, server and rights are as needed |
| `migrate`, `steps` | makes the tables |
| `clean` | deletes what no run refers to |
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from batchscore.database import is_mysql, translated
from batchscore.errors import Problem, Refused
from batchscore.store.clean import Cleaner
from batchscore.store.desk import ReviewDesk
from batchscore.store.fencing import LEASE_S
from batchscore.store.grants import Writer
from batchscore.store.ledger import Ledger
from batchscore.store.place import DATABASE, database_name, engine_of, require_place
from batchscore.store.preflight import findings, require_ready, role_of
from batchscore.store.reader import Reader
from batchscore.store.schema import require_current, require_kind

if TYPE_CHECKING:
    from batchscore.keys import IdKind  # brings numpy and pyarrow, which `status` does without


def open_store(folder: Path, id_kind: IdKind, *, lease_s: float = LEASE_S) -> Ledger:
    """The store of ``folder`` for writing. On SQLite made if it is not there, and migrated if it is older than this code.

    On MySQL the tables are the migrator's (`batchscore db upgrade`): a driver needs no right to change them.

    Raises:
        Refused: ``id_kind``, ``store_schema``, ``database_setup``, or the database cannot be opened.
    """
    engine = engine_of(folder)
    if is_mysql(engine):
        with translated(where="store"), engine.connect() as connection:
            require_current(connection)
            require_kind(connection, id_kind)
            require_ready(connection)
        return Ledger(engine, folder, lease_s=lease_s)
    from batchscore.store.migrate import upgrade  # noqa: PLC0415 (alembic takes 0.1 s; who only reads does without)

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = "the store's folder cannot be made" + (f": {os.strerror(error.errno)}" if error.errno else "")
        remedy = "name another folder (store: in the spec), or mend its disk"
        raise Refused("write_failed", what, where="store", remedy=remedy) from error
    with translated(where="store"), engine.begin() as connection:
        upgrade(connection, id_kind)
    return Ledger(engine, folder, lease_s=lease_s)


def open_reader(folder: Path) -> Reader:
    """The store of ``folder`` for reading; nothing is made or changed.

    Raises:
        Refused: ``store_missing`` or ``store_schema``.
    """
    return Reader(_existing(folder), folder)


def open_desk(folder: Path) -> ReviewDesk:
    """The store of ``folder``, for what people write: claims, decisions, suppressions. Raises as `open_reader`."""
    return ReviewDesk(_existing(folder, read_only=False), folder)


def open_cleaner(folder: Path) -> Cleaner:
    """The store of ``folder``, to clean its unreferenced files. Raises as `open_reader`."""
    return Cleaner(_existing(folder), folder)


def preflight(folder: Path) -> tuple[Writer, tuple[Problem, ...]]:
    """Whose account it is, and what it would be refused for: server, tables and rights of a store on MySQL. Changes nothing.

    Raises:
        Refused: ``store_missing`` or ``store_schema``.
    """
    engine = engine_of(folder)
    try:
        with translated(where="store"), engine.connect() as connection:
            require_current(connection)
            role = role_of(connection)
            return role, tuple(findings(connection, role))
    finally:
        engine.dispose()


def _existing(folder: Path, *, read_only: bool = True) -> sa.Engine:
    if database_name(folder) is None and not (folder / DATABASE).is_file():
        raise Refused(
            "store_missing",
            "there is no store here yet",
            where=str(folder),
            remedy="name its folder with --store, or run a spec first",
        )
    engine = engine_of(folder, read_only=read_only)
    with translated(where="store"), engine.connect() as connection:
        require_current(connection)
    return engine


__all__ = [
    "DATABASE",
    "Cleaner",
    "Ledger",
    "Reader",
    "ReviewDesk",
    "database_name",
    "open_cleaner",
    "open_desk",
    "open_reader",
    "open_store",
    "preflight",
    "require_place",
]
