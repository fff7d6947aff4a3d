"""The demo on MySQL: a server of its own holds the world's accounts and mails as a provider would, the runs and the queue."""

from __future__ import annotations

import os
import shlex
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from pymysql.cursors import Cursor
from rich.console import Console

from batchscore.demo.mysql_server import DemoServer
from batchscore.demo.real_mail import DATABASE
from batchscore.demo.results import say
from batchscore.features.feature_set import read_feature_set
from batchscore.sources.column_types import is_text
from batchscore.spec import read_spec
from batchscore.store.migrate import upgrade_database

ROWS_A_STATEMENT: Final = 1_000
_SOURCES: Final = {
    "accounts": {"sql": {"url": "demo", "table": "accounts"}},
    "mails": {"sql": {"url": "demo", "table": "mails", "key": ["seq"]}},  # closed ranges are read once, for all runs
}
_WHOLE: Final = {
    pa.int8(): "TINYINT",
    pa.int16(): "SMALLINT",
    pa.int32(): "INT",
    pa.int64(): "BIGINT",
    pa.uint64(): "BIGINT UNSIGNED",
}


def write_spec(folder: Path) -> None:
    """The world's ``spec.yaml`` once more, with its sources and its store on MySQL."""
    path = folder / "spec.yaml"
    spec = yaml.safe_load(path.read_text(encoding="utf-8")) | {"sources": _SOURCES, "database": "review"}
    head = "# The demo's spec with accounts, mails, runs and the review queue on MySQL; URLs are in the environment.\n"
    path.write_text(head + yaml.safe_dump(spec, sort_keys=False, allow_unicode=True), encoding="utf-8")


@contextmanager
def on_mysql(folder: Path, console: Console) -> Iterator[tuple[str, ...]]:
    """The server runs in the block, loaded, with the store's tables made; gives the commands that start it again."""
    say(console, f"starting a MariaDB server of the demo's own in {folder / 'mysql'}")
    with DemoServer(folder / "mysql") as server:
        spec = read_spec(folder / "spec.yaml")
        feature_set = read_feature_set(Path(spec.feature_set))
        loaded = folder / "mysql" / "loaded"
        if not loaded.exists():
            say(console, "loading accounts and mails into it")
            with server.filling() as cursor:
                _load(folder, feature_set.accounts.key, cursor)
            loaded.touch()
        _name("REVIEW", server.url_file("migrator"))
        upgrade_database(Path(spec.store), "review", feature_set.account_id)
        exports = _name("DEMO", server.url_file("source")), _name("REVIEW", server.url_file("committer"))
        yield f"{server.command()} &    # the server ended with the demo; this starts it again", *exports
    say(console, "\nthe server has ended with the demo; its data stay")


def _name(database: str, file: Path) -> str:
    """Let the spec's name of a database mean the URL in ``file``; the command that does it in a shell."""
    variable = f"BATCHSCORE_URL_{database}"
    os.environ.pop(variable, None)
    os.environ[f"{variable}_FILE"] = str(file)
    return f"export {variable}_FILE={shlex.quote(str(file))}"


def _load(folder: Path, key: str, cursor: Cursor) -> None:
    """Make and fill the tables ``accounts``, with the primary key ``key``, and ``mails``, in the order in which mails came."""
    in_sqlite = (folder / DATABASE).exists()
    accounts = [_from_sqlite(folder / DATABASE)] if in_sqlite else _files(folder / "accounts")
    _fill(cursor, "accounts", accounts, f"PRIMARY KEY (`{key}`)")
    _fill(cursor, "mails", _files(folder / "mails"), "seq BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY")


def _from_sqlite(path: Path) -> pa.Table:
    connection = sqlite3.connect(path)
    cursor = connection.execute("SELECT * FROM accounts ORDER BY 1")
    names = [column[0] for column in cursor.description]
    columns = list(zip(*cursor.fetchall(), strict=True))
    connection.close()
    return pa.table([pa.array(values) for values in columns], names=names)


def _files(folder: Path) -> list[Path]:
    """By their paths, which begin with their day."""
    return sorted(folder.rglob("*.parquet"))


def _read(part: Path | pa.Table) -> pa.Table:
    return part if isinstance(part, pa.Table) else pq.read_table(part, partitioning=None)


def _fill(cursor: Cursor, table: str, parts: Iterable[Path | pa.Table], key: str) -> None:
    """A file at a time, so that memory is bounded; looked through once before, for the longest text of each column."""
    parts = list(parts)
    longest: dict[str, int] = {}
    kinds: dict[str, pa.DataType] = {}
    for part in parts:
        read = _read(part)
        for name in read.column_names:
            kinds[name] = read[name].type
            if is_text(read[name].type):
                longest[name] = max(longest.get(name, 1), pc.max(pc.utf8_length(read[name])).as_py() or 1)
    columns = [f"`{name}` {_type(kind, longest.get(name))}" for name, kind in kinds.items()]
    cursor.execute(f"DROP TABLE IF EXISTS {table}")  # a load that was cut short
    cursor.execute(f"CREATE TABLE {table} ({', '.join(columns)}, {key})")
    names, places = ", ".join(f"`{name}`" for name in kinds), ", ".join(["%s"] * len(kinds))
    for part in parts:
        for rows in _rows(_read(part).select(list(kinds))):
            cursor.executemany(f"INSERT INTO {table} ({names}) VALUES ({places})", rows)  # noqa: S608 (names of our own worlds)


def _type(kind: pa.DataType, longest: int | None) -> str:
    """A type that holds the column exactly; text by its bytes, which is how ids are told apart."""
    if kind in _WHOLE:
        return _WHOLE[kind]
    if pa.types.is_floating(kind):
        return "DOUBLE"
    if pa.types.is_timestamp(kind):
        return "TIMESTAMP(6) NULL"
    assert is_text(kind), f"a world has no column of {kind}"
    return f"VARCHAR({longest}) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"


def _rows(table: pa.Table) -> Iterator[list[tuple[Any, ...]]]:
    for batch in table.to_batches(max_chunksize=ROWS_A_STATEMENT):
        yield list(zip(*(column.to_pylist() for column in batch.columns), strict=True))
