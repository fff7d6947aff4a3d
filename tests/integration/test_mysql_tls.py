"""With ``ssl_ca`` in its URL a server must prove who it is: by a certificate of that authority, for that host."""

from __future__ import annotations

import contextlib
import shutil
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from batchscore.database import open_engine, read
from batchscore.errors import Refused
from tests.commands import succeeded
from tests.mysql_server import PASSWORD, PROGRAM, PrivateServer

pytestmark = pytest.mark.mysql


def openssl(folder: Path, *words: str) -> None:
    succeeded("openssl", *words, cwd=folder)


def make_certificates(folder: Path) -> None:
    """Two authorities, and a certificate of the first for 127.0.0.1 and no other host."""
    for name in ("ca", "other"):
        openssl(folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN=test {name}",
                "-keyout", f"{name}.key", "-out", f"{name}.pem")  # fmt: skip
    openssl(
        folder, "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test server", "-keyout", "server.key", "-out", "server.csr"
    )
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    openssl(folder, "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-extfile", "names", "-out", "server.pem")  # fmt: skip


@pytest.fixture(scope="module")
def certified() -> Iterator[tuple[PrivateServer, Path]]:
    if PROGRAM is None or shutil.which("openssl") is None:
        pytest.skip("needs a MariaDB server program and openssl")
    with tempfile.TemporaryDirectory(prefix="bs-") as name:
        folder = Path(name)
        make_certificates(folder)
        server = PrivateServer(folder)
        files = {"ca": "ca.pem", "cert": "server.pem", "key": "server.key"}
        server.start(*(f"--ssl-{option}={folder / file}" for option, file in files.items()))
        yield server, folder
        server.kill()


def cipher(url: str) -> str:
    engine = open_engine(url, read_only=True)
    try:
        return str(
            read(engine, lambda connection: connection.exec_driver_sql("SHOW STATUS LIKE 'Ssl_cipher'").one()[1], where="x")
        )
    finally:
        engine.dispose()


def test_a_server_that_proves_who_it_is_is_spoken_to_in_tls(certified: tuple[PrivateServer, Path]) -> None:
    server, folder = certified
    assert cipher(f"{server.url('mysql')}?ssl_ca={folder / 'ca.pem'}")


def test_connections_that_check_nothing_are_in_tls_too_and_share_one_context(
    certified: tuple[PrivateServer, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, folder = certified
    made: list[object] = []
    make_context = ssl.create_default_context

    def counted(**named: Any) -> ssl.SSLContext:
        made.append(named)
        return make_context(**named)

    monkeypatch.setattr(ssl, "create_default_context", counted)
    assert all(cipher(server.url("mysql")) for _ in range(3))
    assert len(made) <= 1, "the system's authorities are read once at most"
    for authority in ("ca.pem", "other.pem"):
        before = len(made)
        with contextlib.suppress(Refused):
            cipher(f"{server.url('mysql')}?ssl_ca={folder / authority}")
        assert len(made) > before, "what is checked has a context of its own"


@pytest.mark.parametrize(("host", "authority"), [("localhost", "ca.pem"), ("127.0.0.1", "other.pem")])
def test_another_host_or_another_authority_is_refused_at_once(
    certified: tuple[PrivateServer, Path], host: str, authority: str
) -> None:
    server, folder = certified
    url = sa.make_url(server.url("mysql")).set(host=host).render_as_string(hide_password=False)
    with pytest.raises(Refused, match=r"database_setup[\s\S]*ssl_ca") as refusal:
        cipher(f"{url}?ssl_ca={folder / authority}")
    assert PASSWORD not in str(refusal.value)


def test_without_tls_on_the_server_nothing_is_said_to_it(
    mysql_server: PrivateServer, certified: tuple[PrivateServer, Path]
) -> None:
    _, folder = certified
    if mysql_server.execute("SELECT @@have_ssl")[0][0] == "YES":
        pytest.skip("this server has certificates")
    with pytest.raises(Refused, match="database_setup"):
        cipher(f"{mysql_server.url('mysql')}?ssl_ca={folder / 'ca.pem'}")
