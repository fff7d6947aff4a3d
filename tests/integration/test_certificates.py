"""`batchscore cluster certs`: who may read what, what a renewal changes, and that openssl agrees."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from batchscore.errors import Refused
from tests.commands import call


@pytest.fixture
def made(tmp_path: Path) -> Path:
    folder = tmp_path / "tls"
    call("cluster", "certs", folder, "--host", "scheduler.internal", "--host", "10.0.0.5")
    return folder


def openssl(*arguments: str | Path) -> str:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_keys_are_their_owners_alone(made: Path) -> None:
    assert made.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in made.glob("*.key")} == {
        f"{role}.key": 0o600 for role in ("ca", "scheduler", "worker", "client")
    }
    assert sorted(path.name for path in made.iterdir()) == sorted(
        f"{role}.{end}" for role in ("ca", "scheduler", "worker", "client") for end in ("pem", "key")
    )


@pytest.mark.parametrize(("role", "purpose"), [("scheduler", "sslserver"), ("worker", "sslserver"), ("client", "sslclient")])
def test_openssl_verifies_each_for_its_purpose(made: Path, role: str, purpose: str) -> None:
    answer = openssl("verify", "-x509_strict", "-purpose", purpose, "-CAfile", made / "ca.pem", made / f"{role}.pem")
    assert answer.rstrip().endswith("OK"), answer
    text = openssl("x509", "-in", made / f"{role}.pem", "-noout", "-text")
    assert "DNS:scheduler.internal, IP Address:10.0.0.5" in text


def test_a_clients_certificate_serves_nobody(made: Path) -> None:
    assert "unsuitable certificate purpose" in openssl(
        "verify", "-purpose", "sslserver", "-CAfile", made / "ca.pem", made / "client.pem"
    )


def test_a_renewal_keeps_the_ca_and_old_and_new_trust_each_other(made: Path) -> None:
    before = {path.name: path.read_bytes() for path in made.iterdir()}
    shown = json.loads(call("cluster", "certs", made, "--renew", "--days", "30", "--json").stdout)
    after = {path.name: path.read_bytes() for path in made.iterdir()}
    assert shown["renewed"]
    assert {name for name in before if before[name] == after[name]} == {"ca.pem", "ca.key"}
    (made / "old.pem").write_bytes(before["worker.pem"])
    assert openssl("verify", "-CAfile", made / "ca.pem", made / "old.pem", made / "worker.pem").count("OK") == 2


def test_a_ca_is_never_written_over(made: Path) -> None:
    before = (made / "ca.key").read_bytes()
    with pytest.raises(Refused, match="a CA lies there already"):
        call("cluster", "certs", made)
    assert (made / "ca.key").read_bytes() == before


def test_what_is_no_host_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no host's name"):
        call("cluster", "certs", tmp_path / "tls", "--host", "two words")
    assert not (tmp_path / "tls").exists()


def test_a_renewal_without_its_ca_is_refused_and_writes_nothing(made: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="not both there"):
        call("cluster", "certs", tmp_path / "absent", "--renew")
    assert not (tmp_path / "absent").exists()
    other = tmp_path / "other"
    call("cluster", "certs", other)
    (made / "ca.key").write_bytes((other / "ca.key").read_bytes())
    with pytest.raises(Refused, match="not the key"):
        call("cluster", "certs", made, "--renew")
