"""A MySQL server for tests: Debian's MariaDB, started privately on loopback, or another by BATCHSCORE_TEST_MYSQL_URL.

Ours has its own data directory and port and may be killed and started again. The other is only given databases of its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import pymysql
import sqlalchemy as sa

from batchscore.database.mysql_connection import MySqlConnection
from tests.orphans import DYING_WITH_US
from tests.ports import reserved_port

PASSWORD: Final = "canary-hunter2"
URL: Final = "BATCHSCORE_TEST_MYSQL_URL"
PROGRAM: Final = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
START_S: Final = 60
# Small and quick. What is written is handed to the kernel, not the disk: tests kill the server, never the machine.
OPTIONS: Final = (
    "--no-defaults", "--skip-name-resolve", "--skip-log-bin", "--performance-schema=OFF", "--bind-address=127.0.0.1",
    "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=32M", "--innodb-flush-log-at-trx-commit=2", "--max-connections=80",
    "--innodb-fast-shutdown=2", "--innodb-flush-method=nosync", "--innodb-doublewrite=0", "--sync-frm=0",
)  # fmt: skip


class MySqlServer:
    """A server reached as its administrator; `make_database` gives a test one of its own."""

    def __init__(self, url: sa.URL) -> None:
        self._admin = url

    @property
    def host(self) -> str:
        return self._admin.host or "127.0.0.1"

    @property
    def port(self) -> int:
        return self._admin.port or 3306

    def make_database(self, *, charset: str = "utf8mb4", collation: str = "utf8mb4_general_ci") -> str:
        """The URL of a new, empty database."""
        name = f"batchscore_test_{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name} CHARACTER SET {charset} COLLATE {collation}")
        return self.url(name)

    def url(self, database: str, *, user: str | None = None, password: str = PASSWORD) -> str:
        url = self._admin.set(database=database)
        if user is not None:
            url = url.set(username=user, password=password)
        return url.render_as_string(hide_password=False)

    def make_account(self, database: str, role: str, statements: Iterable[str]) -> str:
        """The URL of a new account with the rights that ``statements`` give to ``role``."""
        user = f"{role}_{database[-12:]}"
        self.execute(
            f"CREATE USER '{user}'@'%' IDENTIFIED BY '{PASSWORD}'",
            *(re.sub(r" TO \w+$", f" TO '{user}'@'%'", statement) for statement in statements),
        )
        return self.url(database, user=user)

    def execute(self, *statements: str, database: str | None = None) -> list[tuple[Any, ...]]:
        """Run statements as the administrator; the rows of the last one."""
        connection = MySqlConnection(  # of one TLS context: tests connect thousands of times
            host=self.host, port=self.port, user=str(self._admin.username), password=str(self._admin.password or ""),
            database=database, connect_timeout=10, read_timeout=120, write_timeout=60, autocommit=True, charset="utf8mb4",
        )  # fmt: skip
        with contextlib.closing(connection), connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())


class PrivateServer(MySqlServer):
    """Debian's MariaDB in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        assert PROGRAM is not None
        super().__init__(sa.URL.create("mysql", "admin", PASSWORD, "127.0.0.1", reserved_port()))
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._as_root = ["--user=root"] if os.geteuid() == 0 else []
        # Of its own: a server that starts deletes all temporary tables in its folder, also another's that runs.
        self._temporary = folder / "tmp"
        self._temporary.mkdir()
        made = subprocess.run(
            ["mariadb-install-db", "--no-defaults", *self._as_root, f"--datadir={folder / 'data'}", "--skip-test-db",
             "--auth-root-authentication-method=normal", "--innodb-log-file-size=32M"],
            check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=os.environ | {"TMPDIR": str(self._temporary)},
        )  # fmt: skip
        if made.returncode:
            raise RuntimeError(made.stdout)
        accounts = folder / "accounts.sql"
        accounts.write_text(
            f"CREATE USER IF NOT EXISTS 'admin'@'%' IDENTIFIED BY '{PASSWORD}';\n"
            "GRANT ALL PRIVILEGES ON *.* TO 'admin'@'%' WITH GRANT OPTION;\n"
        )
        self._init = f"--init-file={accounts}"

    def start(self, *options: str) -> None:
        """Start it and wait until it answers."""
        log = (self.folder / "server.log").open("ab")
        command = [
            *DYING_WITH_US, str(PROGRAM), *OPTIONS, *self._as_root, f"--datadir={self.folder / 'data'}",
            f"--socket={self.folder / 's'}", f"--pid-file={self.folder / 'pid'}", f"--port={self.port}",
            f"--tmpdir={self._temporary}", self._init, *options,
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()
        deadline = time.monotonic() + START_S
        while True:
            try:
                self.execute("SELECT 1")
            except pymysql.err.OperationalError:
                assert self._process.poll() is None, (self.folder / "server.log").read_text()[-2_000:]
                assert time.monotonic() < deadline, "the server does not answer"
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """SIGKILL, as a machine that loses its power."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop_still(self) -> None:
        """SIGSTOP: it answers nobody, and hangs up on nobody."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """SIGCONT."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """An orderly shutdown."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
