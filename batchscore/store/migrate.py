"""Makes a store's tables: alembic's migrations, run from inside the package, with no configuration file.

On SQLite a driver does it, when it opens the store. On MySQL it is the migrator's: `batchscore db upgrade`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from batchscore.database import READ_S, is_mysql, read, translated
from batchscore.errors import Refused, TryAgain
from batchscore.keys import IdKind
from batchscore.store.place import DATABASE, database_name, keep_name, named_engine
from batchscore.store.schema import REVISIONS, has_version, refuse_kind, refuse_newer, require_kind, revision_of
from batchscore.store.tables import WITH_IDS, installation, metadata

SCRIPTS: Final = Path(__file__).parent / "migrations"
_LOCK_S: Final = 10
_OF_THE_FIRST: Final = frozenset({"installation", "runs", "stages", "partitions", "attempts", "outputs", "run_outputs", "flags"})
_BEGINS: Final = """\
-- batchscore: the tables of version {version}, for {kind} account ids. For the mysql or mariadb client, which stops at the first
-- error (no --force), and while no driver is at work. Where it was cut, run it again whole: what is done is passed over.

"""
# alembic's own statements, each once in a script from nothing, and what they are to be: they are run again where it was cut.
_AGAIN: Final = {
    "CREATE TABLE alembic_version (": "CREATE TABLE IF NOT EXISTS alembic_version (",
    "alembic_version (version_num) VALUES ('0001')": "alembic_version (version_num) SELECT '0001' FROM DUAL "
    "WHERE NOT EXISTS (SELECT 1 FROM alembic_version)",
}


def upgrade(connection: sa.Connection, id_kind: IdKind) -> None:
    """Bring the tables to this code's version: all at once on SQLite, statement by statement on MySQL, one caller at a time.

    Where it was cut on MySQL, it goes on (`steps`).

    Raises:
        Refused: ``store_schema`` (made by newer code, or not by batchscore) or ``id_kind`` (the store holds the other kind).
    """
    with _alone(connection):
        current = _beginning(connection, id_kind)
        if current != REVISIONS[-1]:
            config = alembic_config(id_kind)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def upgrade_database(folder: Path, database: str, id_kind: IdKind) -> str:
    """Bring the tables of the MySQL database of that name to this code's version, and write its name into ``folder``.

    Returns the version.

    Raises:
        Refused: ``store_schema``, ``id_kind``, ``secret_missing``; ``database_error``: the folder has its runs elsewhere already.
        TryAgain: ``database_away`` or ``store_busy``: what was made so far stays, and the same call goes on from there.
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
    except TryAgain as error:
        raise _begin_again(error) from None
    finally:
        engine.dispose()
    keep_name(folder, database)
    return REVISIONS[-1]


def upgrade_script(database: str, id_kind: IdKind) -> str:
    """The statements that `upgrade_database` would run, for a DBA to read and run, again where they were cut. Changes nothing.

    Raises:
        Refused: as `upgrade_database`.
    """
    engine = named_engine(database, read_only=True)
    try:
        since = read(engine, lambda connection: _beginning(connection, id_kind), where=f"url: {database}")
    finally:
        engine.dispose()
    if since == REVISIONS[-1]:
        return f"-- batchscore: the tables are of version {since} already\n"
    written = StringIO()
    command.upgrade(alembic_config(id_kind, written), f"{since or 'base'}:head", sql=True)
    script = written.getvalue()
    for said, again in _AGAIN.items() if since is None else ():
        assert script.count(said) == 1, "alembic says it in other words now"
        script = script.replace(said, again)
    return _BEGINS.format(version=REVISIONS[-1], kind=id_kind) + script


def alembic_config(id_kind: IdKind, written: StringIO | None = None) -> Config:
    """Where the scripts are and what they are to know; ``written``: where they write SQL that nobody runs."""
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
        raise TryAgain("store_busy", "another upgrade of these tables is under way", where="store", remedy="wait until it ends")
    try:
        yield
    finally:
        if not connection.invalidated:  # else the lock ended with it
            connection.execute(sa.select(sa.func.release_lock(name)))


def _begin_again(error: TryAgain) -> TryAgain:
    """The same, told to whoever upgrades and has no run to resume."""
    first, longer = error.remedy, ""
    if error.reason == "database_away":
        first = "once it is back"
        longer = f"; where one statement takes longer than {READ_S} s, add ?read_timeout=3600 to the migrator's URL"
    remedy = f"{first}, run batchscore db upgrade SPEC again: it goes on from what was made{longer}"
    return TryAgain(error.reason, error.what, where=error.where, remedy=remedy)


def _beginning(connection: sa.Connection, id_kind: IdKind) -> str | None:
    """The revision to begin at; None for the first.

    Raises:
        Refused: ``store_schema`` or ``id_kind``: the tables are not ours to upgrade, or not in this way.
    """
    current = revision_of(connection)
    if current is not None:
        refuse_newer(current)
        require_kind(connection, id_kind)
    elif found := sorted({*metadata.tables, *WITH_IDS} & {*sa.inspect(connection).get_table_names()}):
        if not _was_cut(connection, found):
            raise Refused(
                "store_schema",
                f"tables named {', '.join(found)} are there, and no version of batchscore",
                where="store",
                remedy="use an empty database",
            )
        for held in connection.execute(sa.select(installation.c.id_kind)).scalars():
            refuse_kind(held, id_kind)
    return current


def _was_cut(connection: sa.Connection, found: list[str]) -> bool:
    """Whether tables without a version are of an upgrade that was cut in its first revision.

    It has made alembic's table and, before all others of ours, the one that says the kind of ids. With tables of later revisions
    it is a store whose version somebody deleted: to begin that again would be to number its flags again.
    """
    if not has_version(connection) or installation.name not in found or not _OF_THE_FIRST.issuperset(found):
        return False
    return [column["name"] for column in sa.inspect(connection).get_columns(installation.name)] == ["id_kind"]
