"""The same run spec on every way to run it that we ship: equal to the bit. And who has no certificate gets nowhere."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from distributed import Client
from distributed.security import Security

from batchscore.errors import DONE
from batchscore.store import open_reader
from tests.commands import call
from tests.deploy import compose
from tests.deploy.clusters import AS_OF, N_WORKERS, World, compose_cluster, make_host, make_world, systemd_cluster, unit_command
from tests.deploy.processes import finished, told_by
from tests.deploy.units import Host
from tests.run_digest import run_digest


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def digest(host: Host) -> str:
    store = host.root / "srv/batchscore/demo-100000/store"
    (row,) = open_reader(store).runs(limit=10)
    assert row.state == "finished"
    assert row.released_at is not None
    assert open_reader(store).queue(None, limit=10), "no flags: nothing was compared"
    return run_digest(store, row.run_id)


def test_a_spec_gives_equal_bits_inline_on_a_local_cluster_by_units_and_by_compose(world: World, tmp_path: Path) -> None:
    digests = {}
    for way, options in (("inline", ["--inline"]), ("local cluster", ["--workers", "2"])):
        host = make_host(tmp_path / way, world)
        done = call("sweep", host.root / "srv/batchscore/jobs/world/sweep.yaml", "--as-of", AS_OF, *options)
        assert done.code == DONE
        digests[way] = digest(host)

    host = make_host(tmp_path / "units", world)
    with systemd_cluster(host):
        ended = finished(unit_command("batchscore-sweep.service", host), host.root, "--as-of", AS_OF)
    assert ended.returncode == DONE, ended.stderr[-3_000:]
    digests["units"] = digest(host)
    log = [json.loads(line) for line in ended.stderr.splitlines() if line.startswith("{")]
    assert any(line["message"] == "released" for line in log)
    textfile = host.root / "var/lib/prometheus/node-exporter/batchscore-sweep.prom"
    assert 'batchscore_run_exit_code{spec="world-sweep"} 0.0' in textfile.read_text()
    assert '"attempt finished"' in (host.root / "worker.log").read_text()

    host = make_host(tmp_path / "compose", world)
    with compose_cluster(host):
        command = compose.command_of("sweep", host, host.root / "etc/batchscore/tls")
        ended = finished(command, host.root, "--as-of", AS_OF)
    assert ended.returncode == DONE, ended.stderr[-3_000:]
    digests["compose"] = digest(host)
    assert '"attempt finished"' in (host.root / "worker.log").read_text()
    assert len(set(digests.values())) == 1, digests


@pytest.fixture(scope="module")
def secured(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A cluster by the units' command lines, up."""
    host = make_host(tmp_path_factory.mktemp("secured") / "host", world)
    with systemd_cluster(host):
        client = Client(address(host), security=security(host.root / "etc/batchscore/tls", "client"), timeout=60)
        client.wait_for_workers(N_WORKERS, timeout=60)
        client.close()
        yield host


def address(host: Host) -> str:
    return f"tls://127.0.0.1:{host.ports[8786]}"


def security(folder: Path, role: str) -> Security:
    ca, certificate, key = (str(folder / name) for name in ("ca.pem", f"{role}.pem", f"{role}.key"))
    return Security(tls_ca_file=ca, tls_client_cert=certificate, tls_client_key=key, require_encryption=True)


def worker_ports(host: Host) -> list[int]:
    with Client(address(host), security=security(host.root / "etc/batchscore/tls", "client")) as client:
        workers = client.scheduler_info(n_workers=-1)["workers"]
        return [int(name.rpartition(":")[2]) for name in workers] + [int(w["nanny"].rpartition(":")[2]) for w in workers.values()]


def test_a_client_without_tls_gets_nowhere(secured: Host) -> None:
    with pytest.raises((OSError, TimeoutError)):
        Client(f"tcp://127.0.0.1:{secured.ports[8786]}", timeout=3)


def test_a_client_certified_by_another_ca_gets_nowhere(secured: Host, tmp_path: Path) -> None:
    call("cluster", "certs", tmp_path / "other")
    with pytest.raises((OSError, TimeoutError)):
        Client(address(secured), security=security(tmp_path / "other", "client"), timeout=3)


def test_a_client_whose_certificate_ended_gets_nowhere(secured: Host, tmp_path: Path) -> None:
    own = secured.root / "etc/batchscore/tls"
    shutil.copy(own / "ca.pem", tmp_path)
    write_ended(own, tmp_path)
    with pytest.raises((OSError, TimeoutError)):
        Client(address(secured), security=security(tmp_path, "client"), timeout=3)
    context = ssl.create_default_context(cafile=str(own / "ca.pem"))
    context.check_hostname = False
    context.load_cert_chain(tmp_path / "client.pem", tmp_path / "client.key")
    for port in (secured.ports[8786], *worker_ports(secured)):
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as wire,
            pytest.raises(ssl.SSLError, match=r"(?i)certificate.expired"),
            context.wrap_socket(wire) as wrapped,
        ):
            wrapped.recv(1)  # in TLS 1.3 a refusal comes after the handshake


def write_ended(own: Path, folder: Path) -> None:
    """The client's own certificate of this cluster, signed by its CA with its own key, but of the day before yesterday."""
    certificate = x509.load_pem_x509_certificate((own / "client.pem").read_bytes())
    ca_key = load_pem_private_key((own / "ca.key").read_bytes(), password=None)
    assert isinstance(ca_key, EllipticCurvePrivateKey)
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        certificate.issuer, certificate.subject, certificate.public_key(), x509.random_serial_number()
    )
    builder = builder.not_valid_before(now - timedelta(days=2)).not_valid_after(now - timedelta(days=1))
    for extension in certificate.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    (folder / "client.pem").write_bytes(builder.sign(ca_key, SHA256()).public_bytes(Encoding.PEM))
    shutil.copy(own / "client.key", folder)


def test_who_shows_no_certificate_is_not_answered_by_scheduler_worker_or_nanny(secured: Host) -> None:
    context = ssl.create_default_context(cafile=str(secured.root / "etc/batchscore/tls/ca.pem"))
    context.check_hostname = False
    ports = [secured.ports[8786], *worker_ports(secured)]
    assert len(ports) == 1 + 2 * N_WORKERS
    for port in ports:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as wire:
            said = b""
            try:
                with context.wrap_socket(wire) as wrapped:
                    said = wrapped.recv(1)  # in TLS 1.3 a refusal comes after the handshake
            except (ssl.SSLError, ConnectionError) as error:
                assert "CERTIFICATE_REQUIRED" in str(error).upper() or isinstance(error, ConnectionError), error
            assert said == b""


def test_a_driver_is_refused_without_certificates_and_told_what_it_needs(secured: Host) -> None:
    command = unit_command("batchscore-sweep.service", secured)
    bare = {name: value for name, value in command.environment.items() if "TLS" not in name}
    done = told_by([*command.words, "--as-of", AS_OF], env={"PATH": os.environ["PATH"]} | bare, cwd=secured.root)
    assert done.returncode == 2
    assert "BS-505" in done.stderr
    assert "DASK_DISTRIBUTED__COMM__TLS__CA_FILE" in done.stderr


def test_the_cluster_serves_metrics_and_health_on_loopback_and_its_log_is_ecs(secured: Host) -> None:
    for port in (secured.ports[8787], secured.ports[8801]):
        for page in ("health", "metrics"):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=5) as answer:
                assert answer.status == 200
    with urllib.request.urlopen(f"http://127.0.0.1:{secured.ports[8787]}/api/v1", timeout=5) as answer:
        assert answer.status == 200
    for log in ("scheduler.log", "worker.log"):
        lines = [json.loads(line) for line in (secured.root / log).read_text().splitlines() if line]
        assert {line["log"]["logger"].partition(".")[0] for line in lines} >= {"distributed"}
