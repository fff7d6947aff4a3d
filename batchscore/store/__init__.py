"""The store: runs, progress, receipts and flags in one database, beside the folder that holds the outputs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from batchscore.database import open_engine, translated
from batchscore.errors import Refused
from batchscore.store.clean import Cleaner
from batchscore.store.ledger import LEASE_S, Ledger
from batchscore.store.reader import Reader
from batchscore.store.schema import require_current

if TYPE_CHECKING:
    from batchscore.keys import IdKind  # brings numpy and pyarrow, which `status` does without

DATABASE: Final = "batchscore.db"


def open_store(folder: Path, id_kind: IdKind, *, lease_s: float = LEASE_S) -> Ledger:
    """The store in ``folder`` for writing; made if it is not there, migrated if it is older than this code.

    Raises:
        Refused: ``id_kind``, ``store_schema``, or the database cannot be opened.
    """
    from batchscore.store.migrate import upgrade  # noqa: PLC0415 (alembic takes 0.1 s; who only reads does without)

    folder.mkdir(parents=True, exist_ok=True)
    engine = _engine(folder)
    with translated(where="store"), engine.begin() as connection:
        upgrade(connection, id_kind)
    return Ledger(engine, folder, lease_s=lease_s)


def open_reader(folder: Path) -> Reader:
    """The store in ``folder`` for reading; nothing is made or changed.

    Raises:
        Refused: ``store_missing`` or ``store_schema``.
    """
    return Reader(_existing(folder), folder)


def open_cleaner(folder: Path) -> Cleaner:
    """The store in ``folder``, to clean its unreferenced files. Raises as `open_reader`."""
    return Cleaner(_existing(folder), folder)


def _existing(folder: Path) -> sa.Engine:
    if not (folder / DATABASE).is_file():
        raise Refused(
            "store_missing",
            "there is no store here yet",
            where=str(folder),
            remedy="name its folder with --store, or run a spec first",
        )
    engine = _engine(folder, read_only=True)
    with translated(where="store"), engine.connect() as connection:
        require_current(connection)
    return engine


def _engine(folder: Path, *, read_only: bool = False) -> sa.Engine:
    return open_engine(
        sa.URL.create("sqlite", database=str(folder / DATABASE)).render_as_string(hide_password=False), read_only=read_only
    )


__all__ = ["DATABASE", "Cleaner", "Ledger", "Reader", "open_cleaner", "open_reader", "open_store"]
