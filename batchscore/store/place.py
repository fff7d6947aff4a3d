"""Where a store's database is: SQLite's file in the store's folder, or a MySQL database that the folder knows by name.

The outputs always lie in the folder. On MySQL a file there holds the *name* of the database (never its URL, which is the
environment's), so that every command that is given the folder finds both. `batchscore db upgrade` writes it.
"""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from batchscore.database import is_mysql, open_engine
from batchscore.errors import Refused
from batchscore.settings import database_url
from batchscore.values import NAME

DATABASE: Final = "batchscore.db"
POINTER: Final = "database.name"


def database_name(folder: Path) -> str | None:
    """The name of the MySQL database that goes with the folder; None for SQLite.

    Raises:
        Refused: ``database_error``: the file holds no name.
    """
    try:
        name = (folder / POINTER).read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not re.match(NAME, name):
        raise Refused(
            "database_error", "holds no name of a database", where=str(folder / POINTER), remedy="batchscore db upgrade"
        )
    return name


def require_place(folder: Path, database: str | None) -> None:
    """Refuse a spec that would look for the runs of ``folder`` elsewhere than where they are. Reads only.

    Raises:
        Refused: ``store_missing`` or ``database_error``.
    """
    held = database_name(folder)
    if held == database:
        return
    if held is None and not (folder / DATABASE).exists():
        raise Refused(
            "store_missing",
            f"the database {database!r} does not go with this folder yet",
            where=str(folder),
            remedy="batchscore db upgrade SPEC makes its tables, once",
        )
    said = f"in the database {held!r}" if held else f"in {DATABASE}"
    raise Refused(
        "database_error",
        f"the runs of this store are {said}, the spec says {database!r}" if database else f"the runs of this store are {said}",
        where=str(folder),
        remedy=f"write 'database: {held}' in the spec" if held else "remove 'database' from the spec, or use another folder",
    )


def keep_name(folder: Path, database: str) -> None:
    """Write the name beside the outputs."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{POINTER}.{uuid.uuid4().hex}"
    temporary.write_text(f"{database}\n", encoding="utf-8")
    temporary.replace(folder / POINTER)


def engine_of(folder: Path, *, read_only: bool = False) -> sa.Engine:
    """An engine for the folder's database.

    Raises:
        Refused: ``secret_missing``, or the URL of that name is no MySQL.
    """
    name = database_name(folder)
    if name is not None:
        return named_engine(name, read_only=read_only)
    file = sa.URL.create("sqlite", database=str(folder / DATABASE))
    return open_engine(file.render_as_string(hide_password=False), read_only=read_only)


def database_of(name: str) -> str:
    """The database's own name on its server. Raises as `engine_of`."""
    engine = named_engine(name, read_only=True)
    return str(engine.url.database)


def named_engine(name: str, *, read_only: bool = False) -> sa.Engine:
    """An engine for the MySQL database of that name. Raises as `engine_of`."""
    engine = open_engine(database_url(name), read_only=read_only)
    if not is_mysql(engine):
        raise Refused(
            "database_error",
            f"the database {name!r} is no MySQL",
            where=f"url: {name}",
            remedy="remove 'database' from the spec: a SQLite store lies in the store's folder",
        )
    return engine
