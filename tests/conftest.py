"""What tests of all kinds share: the one MySQL server of the session, and a store on it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings

from batchscore.keys import IdKind
from batchscore.store.grants import grants
from batchscore.store.migrate import upgrade_database
from tests.dba import URL as DBA_URL
from tests.mysql_server import PROGRAM, URL, MySqlServer, PrivateServer

# On a loaded machine an example of many is slow, or is slowly made, which says nothing of the code; a hang has pytest's timeout.
settings.register_profile("batchscore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("batchscore")

MakeMySqlStore = Callable[..., Path]


@pytest.fixture(scope="session")
def mysql_server() -> Iterator[MySqlServer]:
    """A server for the whole session: ours, or the one that the environment names."""
    if url := os.environ.get(URL):
        yield MySqlServer(sa.make_url(url))
        return
    if PROGRAM is None:
        pytest.skip("no MariaDB server program on this machine: make mariadb")
    with tempfile.TemporaryDirectory(prefix="bs-") as folder:  # short: a socket's path has 107 bytes
        server = PrivateServer(Path(folder))
        server.start()
        yield server
        server.kill()


@pytest.fixture
def private_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateServer]:
    """A server of the test's own, which it may kill."""
    if PROGRAM is None:
        pytest.skip("no MariaDB server program on this machine: make mariadb")
    with tempfile.TemporaryDirectory(prefix="bs-") as folder:
        server = PrivateServer(Path(folder))
        server.start()
        yield server
        server.kill()


@pytest.fixture
def mysql_store(mysql_server: MySqlServer, monkeypatch: pytest.MonkeyPatch) -> MakeMySqlStore:
    """Gives a folder a store on MySQL, under the name ``review``; what the URL holds beyond is in the query ``more``.

    A migrator makes the tables. The URL is then that of an account with a committer's rights and a reviewer's, and no others:
    tests are drivers and people in one. (Each alone is in test_mysql_rights.py.)
    """

    def made(folder: Path, kind: IdKind = "integer", *, server: MySqlServer | None = None, more: str = "") -> Path:
        on = server or mysql_server
        dba = on.make_database()
        monkeypatch.setenv(DBA_URL, dba)
        database = str(sa.make_url(dba).database)
        rights = grants(database)
        monkeypatch.setenv("BATCHSCORE_URL_REVIEW", on.make_account(database, "migrator", rights["migrator"]))
        upgrade_database(folder, "review", kind)
        both = on.make_account(database, "both", (*rights["committer"], *rights["reviewer"]))
        monkeypatch.setenv("BATCHSCORE_URL_REVIEW", both + more)
        return folder

    return made


@pytest.fixture
def source_reader(mysql_server: MySqlServer) -> Callable[[str], str]:
    """The URL of an account that may read the database of a URL, and nothing else: all that a source needs."""

    def made(url: str) -> str:
        database = str(sa.make_url(url).database)
        return mysql_server.make_account(database, "source", [f"GRANT SELECT ON {database}.* TO source"])

    return made
