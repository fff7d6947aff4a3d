"""Makes a store's tables: alembic's migrations, run from inside the package, with no configuration file.

On SQLite a driver does it, when it opens the store. On MySQL it is the migrator's: `batchscore db upgrade`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from batchscore.database import is_mysql, read, translated
from batchscore.errors import Refused, TryAgain
from batchscore.keys import IdKind
from batchscore.store.place import DATABASE, database_name, keep_name, named_engine
from batchscore.store.schema import REVISIONS, refuse_newer, require_kind, revision_of
from batchscore.store.tables import WITH_IDS, metadata

SCRIPTS: Final = Path(__file__).parent / "migrations"
_LOCK_S: Final = 10
_TRIGGER: Final = re.compile(r"^(CREATE TRIGGER .*?END IF);\n", re.DOTALL | re.MULTILINE)  # a client would end it at its first ;


def upgrade(connection: sa.Connection, id_kind: IdKind) -> None:
    """Bring the tables to this code's version: all at once on SQLite, statement by statement on MySQL, one caller at a time.

    Raises:
        Refused: ``store_schema`` (made by newer code, or not by batchscore) or ``id_kind`` (the store holds the other kind).
    """
    with _alone(connection):
        current = revision_of(connection)
        if current is not None:
            refuse_newer(current)
        if current != REVISIONS[-1]:
            if current is None:
                _refuse_strangers(connection)
            config = _config(id_kind)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    require_kind(connection, id_kind)


def upgrade_database(folder: Path, database: str, id_kind: IdKind) -> str:
    """Bring the tables of the MySQL database of that name to this code's version, and write its name into ``folder``.

    Returns the version.

    Raises:
        Refused: ``store_schema``, ``id_kind``, ``secret_missing``, or the folder has its runs elsewhere already.
    """
    held = database_name(folder)
    if held not in {None, database} or (held is None and (folder / DATABASE).exists()):
        raise Refused(
            "database_error",
            f"this folder has its runs in {held or DATABASE} already",
            where=str(folder),
            remedy="use another folder: runs are not moved between databases",
        )
    engine = named_engine(database)
    try:
        with translated(where=f"url: {database}"), engine.connect() as connection:
            upgrade(connection, id_kind)
            connection.commit()
    finally:
        engine.dispose()
    keep_name(folder, database)
    return REVISIONS[-1]


def upgrade_script(database: str, id_kind: IdKind) -> str:
    """The statements that `upgrade_database` would run, for a DBA to read and run. Changes nothing."""
    engine = named_engine(database, read_only=True)
    try:
        since = read(engine, revision_of, where=f"url: {database}")
    finally:
        engine.dispose()
    written = StringIO()
    command.upgrade(_config(id_kind, written), f"{since or 'base'}:head", sql=True)
    return _TRIGGER.sub(r"DELIMITER //\n\1//\nDELIMITER ;\n", written.getvalue())


def _config(id_kind: IdKind, written: StringIO | None = None) -> Config:
    config = Config(output_buffer=written) if written else Config()
    config.set_main_option("script_location", str(SCRIPTS))
    config.attributes["id_kind"] = id_kind
    return config


@contextmanager
def _alone(connection: sa.Connection) -> Iterator[None]:
    """MySQL's DDL commits as it goes, so that no transaction keeps two migrators apart: a named lock does."""
    if not is_mysql(connection):
        yield
        return
    name = sa.func.concat("batchscore ", sa.func.left(sa.func.database(), 50))
    if connection.execute(sa.select(sa.func.get_lock(name, _LOCK_S))).scalar_one() != 1:
        raise TryAgain(
            "store_busy", "another upgrade of these tables is under way", where="store", remedy="try again when it ends"
        )
    try:
        yield
    finally:
        connection.execute(sa.select(sa.func.release_lock(name)))


def _refuse_strangers(connection: sa.Connection) -> None:
    """Tables without a version are somebody else's, or an upgrade's that was cut: neither is touched."""
    found = sorted({*metadata.tables, *WITH_IDS} & {*sa.inspect(connection).get_table_names()})
    if found:
        raise Refused(
            "store_schema",
            f"tables named {', '.join(found)} are there, and no version of batchscore",
            where="store",
            remedy="use an empty database; if an upgrade was cut here, drop these tables first",
        )
