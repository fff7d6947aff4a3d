"""A MariaDB server of the demo's own: on loopback, in a data directory of its own, gone when the block is left.

Its accounts have passwords drawn at random, and no more rights than they need: one that reads the source, a migrator and a
committer of the store. Their URLs are files in the same folder that only its owner can read.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pymysql
from pymysql.cursors import Cursor

from batchscore.errors import Refused, RunFailed

SOURCE: Final = "crm"  # the databases
STORE: Final = "review"
START_S: Final = 60
_RIGHTS: Final = {  # account → where, and what
    "source": (SOURCE, "SELECT"),
    "migrator": (STORE, "SELECT, INSERT, UPDATE, CREATE, ALTER, DROP, INDEX, REFERENCES, CREATE VIEW, TRIGGER"),
    "committer": (STORE, "SELECT, INSERT, UPDATE"),
}
_OWNER: Final = "loader"  # who fills the source: nobody of a run's accounts may
_OPTIONS: Final = (
    "--no-defaults", "--skip-name-resolve", "--skip-log-bin", "--performance-schema=OFF", "--bind-address=127.0.0.1",
    "--socket=",  # none: a path that any folder allows would be one that others can guess, and all come over TCP
    "--innodb-buffer-pool-size=128M", "--innodb-log-file-size=64M",
)  # fmt: skip


def server_programs(besides: str = "/usr/sbin:/usr/local/sbin") -> tuple[str, str]:
    """The paths of MariaDB's server and of what makes its data directory, in the PATH or ``besides``.

    Servers are in sbin, which a plain user's PATH often lacks.

    Raises:
        Refused: ``extra_missing``: it is not on this machine.
    """
    path = f"{os.environ.get('PATH', os.defpath)}:{besides}"
    program, install = (shutil.which(name, path=path) for name in ("mariadbd", "mariadb-install-db"))
    if program is None or install is None:
        raise Refused(
            "extra_missing",
            "the demo on MySQL starts a MariaDB server of its own, and mariadbd is not on this machine",
            where="--mysql",
            remedy="apt-get install --no-install-recommends mariadb-server-core mariadb-client-core",
        )
    return program, install


class DemoServer:
    """The server in ``folder``, made at the first start and started again later. A context manager: it runs in the block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._program, self._install = server_programs()
        self._process: subprocess.Popen[bytes] | None = None
        self._as_root = ["--user=root"] if os.geteuid() == 0 else []
        self._port = 0

    def __enter__(self) -> Self:
        first = [] if (self._folder / "ready").exists() else self._make()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = int(free.getsockname()[1])
        self._start(first)
        try:
            self._write_urls()
            (self._folder / "ready").touch()
            (self._folder / "accounts.sql").unlink(missing_ok=True)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()

    def url_file(self, role: str) -> Path:
        """Where the URL of an account lies: ``source``, ``migrator`` or ``committer``."""
        return self._folder / f"{role}.url"

    @contextlib.contextmanager
    def filling(self) -> Iterator[Cursor]:
        """A cursor of the source's owner; what was done in the block is committed at its end."""
        with self._connected() as connection, connection.cursor() as cursor:
            yield cursor
            connection.commit()

    def command(self) -> str:
        """The command that starts it again at the same port."""
        return shlex.join(self._command())

    def _make(self) -> list[str]:
        """The data directory; gives the options of the first start."""
        shutil.rmtree(self._folder, ignore_errors=True)  # a first start that was cut short
        self._folder.mkdir(mode=0o700, parents=True)
        install = [
            self._install, "--no-defaults", *self._as_root, f"--datadir={self._folder / 'data'}", "--skip-test-db",
            "--auth-root-authentication-method=normal", "--innodb-log-file-size=64M",
        ]  # fmt: skip
        with self._log().open("ab") as log:
            surroundings = os.environ | {"TMPDIR": str(self._temporary())}
            made = subprocess.run(install, check=False, stdout=log, stderr=log, env=surroundings)  # noqa: S603 (of the PATH, no shell)
        if made.returncode:
            raise self._failed("its data directory could not be made")
        for account in (*_RIGHTS, _OWNER):
            self._secret(account).touch(mode=0o600)
            self._secret(account).write_text(secrets.token_hex(16), encoding="ascii")
        return [f"--init-file={self._accounts()}"]

    def _accounts(self) -> Path:
        """Statements that the server runs before it takes a connection: ours come, and root, who has no password, goes."""
        said = [f"CREATE DATABASE {database} CHARACTER SET utf8mb4;" for database in (SOURCE, STORE)]
        for account, (database, rights) in (_RIGHTS | {_OWNER: (SOURCE, "ALL")}).items():
            said.append(f"CREATE USER {account}@'127.0.0.1' IDENTIFIED BY '{self._password(account)}';")
            said.append(f"GRANT {rights} ON {database}.* TO {account}@'127.0.0.1';")
        said += ["DELETE FROM mysql.global_priv WHERE User IN ('root', '', 'mariadb.sys');", "FLUSH PRIVILEGES;"]
        file = self._folder / "accounts.sql"
        file.touch(mode=0o600)
        file.write_text("\n".join(said) + "\n", encoding="ascii")
        return file

    def _write_urls(self) -> None:
        for account, (database, _) in _RIGHTS.items():
            file = self.url_file(account)
            file.touch(mode=0o600)
            file.write_text(f"mysql://{account}:{self._password(account)}@127.0.0.1:{self._port}/{database}\n", encoding="ascii")

    def _command(self) -> list[str]:
        return [
            self._program, *_OPTIONS, *self._as_root, f"--datadir={self._folder / 'data'}", f"--port={self._port}",
            f"--pid-file={self._folder / 'pid'}", f"--tmpdir={self._temporary()}",
        ]  # fmt: skip

    def _temporary(self) -> Path:
        """A folder of its own: a server that starts deletes all temporary tables in it, also those of another that runs."""
        folder = self._folder / "tmp"
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def _start(self, first: Sequence[str]) -> None:
        with self._log().open("ab") as log:
            self._process = subprocess.Popen([*self._command(), *first], stdout=log, stderr=log)  # noqa: S603 (as above)
        until = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1) as asked:
                if asked.recv(1):  # it listens before it has made its accounts, and greets after
                    return
            if self._process.poll() is not None or time.monotonic() > until:
                self._stop()
                raise self._failed("it does not answer")
            time.sleep(0.05)

    def _stop(self) -> None:
        """An orderly shutdown, and the end of a server that does not come to it."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(START_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _connected(self) -> contextlib.closing[pymysql.Connection[Cursor]]:
        return contextlib.closing(
            pymysql.connect(
                host="127.0.0.1", port=self._port, user=_OWNER, password=self._password(_OWNER), database=SOURCE,
                charset="utf8mb4", connect_timeout=10, read_timeout=120, write_timeout=120, local_infile=False,
                init_command="SET SESSION time_zone = '+00:00'",
            )
        )  # fmt: skip

    def _log(self) -> Path:
        return self._folder / "server.log"

    def _secret(self, account: str) -> Path:
        return self._folder / f"{account}.password"

    def _password(self, account: str) -> str:
        return self._secret(account).read_text(encoding="ascii")

    def _failed(self, what: str) -> RunFailed:
        return RunFailed(
            "run_failed", f"the demo's MariaDB server: {what}", where=str(self._log()),
            remedy="read the log; then remove the demo's folder, and start again",
        )  # fmt: skip
