"""Certificates with which a cluster's scheduler, workers and clients know each other: a CA of its own, and one for each role.

Dask asks a peer for a certificate of the CA and looks no further: whoever holds one may run code on the workers, whatever its
role is called. So the CA's key stays where certificates are made, keys are readable by their owner alone, and certificates end
soon and are renewed under the same CA. cryptography is an extra (``cluster``), imported when certificates are made.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from batchscore.errors import Refused
from batchscore.values import Value

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

ROLES: Final = ("scheduler", "worker", "client")
CA: Final = "ca"
CA_DAYS: Final = 3_650
PRIVATE, PUBLIC = 0o600, 0o644
_HOST_NAME: Final = re.compile(r"[0-9A-Za-z.:-]{1,253}")
CLOCKS_APART: Final = timedelta(minutes=5)  # a host whose clock is a little behind must not find a certificate too young


class Certificate(Value):
    """One that was made: ``role``, its file and its key's, until when it holds, the SHA-256 of its bytes."""

    role: str
    certificate: str
    key: str
    not_after: datetime
    sha256: str


class Certificates(Value):
    """cluster certs: what lies in the folder now; of a renewal the CA is the one that was there."""

    folder: str
    renewed: bool
    certificates: tuple[Certificate, ...]


def make_certificates(folder: Path, *, hosts: Sequence[str], days: int, renew: bool) -> Certificates:
    """Make a CA in a new folder and a certificate for each role; with ``renew``, new ones under the CA that is there.

    ``hosts``: names and addresses of the cluster's hosts, written into every certificate; Dask itself does not compare them.

    Raises:
        Refused: ``certs_refused``: a CA is there already, or, to renew, none is, or it ends before the certificates would;
            ``extra_missing``.
    """
    _require_cryptography()
    now = datetime.now(UTC).replace(microsecond=0)
    names = [_host(host) for host in hosts]
    if renew:
        ca, ca_key = _read_ca(folder, now + timedelta(days=days))
    else:
        if (folder / f"{CA}.pem").exists() or (folder / f"{CA}.key").exists():
            raise _refused(folder, "a CA lies there already", "add --renew for new certificates under it, or name a new folder")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        ca, ca_key = _make_ca(now)
        _write(folder, CA, ca, ca_key)
    made = [_told(folder, CA, ca)]
    for role in ROLES:
        certificate, key = _make_leaf(role, names, (now, now + timedelta(days=days)), (ca, ca_key))
        _write(folder, role, certificate, key)
        made.append(_told(folder, role, certificate))
    return Certificates(folder=str(folder), renewed=renew, certificates=tuple(made))


def _make_ca(now: datetime) -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("batchscore cluster CA")
    builder = _builder(name, name, key, (now, now + timedelta(days=CA_DAYS)))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    return _signed(builder, key), key


def _make_leaf(
    role: str,
    names: Sequence[x509.GeneralName],
    holds: tuple[datetime, datetime],
    signer: tuple[x509.Certificate, EllipticCurvePrivateKey],
) -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    ca, ca_key = signer
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name(f"batchscore {role}"), ca.subject, key, holds)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    # In Dask each may listen and connect; but a client only connects, so its certificate serves nobody.
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH] + ([ExtendedKeyUsageOID.SERVER_AUTH] if role != "client" else [])
    builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _signed(builder, ca_key), key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey, holds: tuple[datetime, datetime]
) -> x509.CertificateBuilder:
    from cryptography import x509

    first, last = holds
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(first - CLOCKS_APART)
        .not_valid_after(last)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _signed(builder: x509.CertificateBuilder, key: EllipticCurvePrivateKey) -> x509.Certificate:
    from cryptography.hazmat.primitives.hashes import SHA256

    return builder.sign(key, SHA256())


def _name(common: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _host(text: str) -> x509.GeneralName:
    from cryptography import x509

    if _HOST_NAME.fullmatch(text):
        try:
            return x509.IPAddress(ipaddress.ip_address(text))
        except ValueError:
            return x509.DNSName(text)
    raise Refused(
        "certs_refused", f"{text!r} is no host's name or address", where="--host", remedy="such as --host node1.internal"
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _read_ca(folder: Path, until: datetime) -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        ca = x509.load_pem_x509_certificate((folder / f"{CA}.pem").read_bytes())
        key = load_pem_private_key((folder / f"{CA}.key").read_bytes(), password=None)
    except (OSError, ValueError, TypeError):
        raise _refused(folder, "ca.pem and ca.key are not both there to renew under", "leave --renew out to make a CA") from None
    if not isinstance(key, EllipticCurvePrivateKey) or key.public_key() != ca.public_key():
        raise _refused(folder, "ca.key is not the key of ca.pem", "put back the two that were made together")
    if ca.not_valid_after_utc < until:
        ends = f"{ca.not_valid_after_utc:%Y-%m-%d}"
        raise _refused(folder, f"its CA ends on {ends}, before the certificates would", "fewer --days, or a CA in a new folder")
    return ca, key


def _write(folder: Path, name: str, certificate: x509.Certificate, key: EllipticCurvePrivateKey) -> None:
    """Both files, each whole or not at all; the key first. A process that reads them between the two fails, and is restarted."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with _replaced(folder / f"{name}.key", PRIVATE) as file:
        os.write(file, private)
    with _replaced(folder / f"{name}.pem", PUBLIC) as file:
        os.write(file, certificate.public_bytes(Encoding.PEM))


@contextmanager
def _replaced(path: Path, mode: int) -> Iterator[int]:
    """A new file that takes the place of ``path`` when the block ends; at no moment more readable than ``mode``."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        yield file
        os.fchmod(file, mode)
        os.fsync(file)
        temporary.rename(path)
    finally:
        os.close(file)
        temporary.unlink(missing_ok=True)


def _told(folder: Path, role: str, certificate: x509.Certificate) -> Certificate:
    from cryptography.hazmat.primitives.hashes import SHA256

    return Certificate(
        role=role,
        certificate=str(folder / f"{role}.pem"),
        key=str(folder / f"{role}.key"),
        not_after=certificate.not_valid_after_utc,
        sha256=certificate.fingerprint(SHA256()).hex(),
    )


def _refused(folder: Path, what: str, remedy: str) -> Refused:
    return Refused("certs_refused", what, where=str(folder), remedy=remedy)


def _require_cryptography() -> None:
    try:
        import cryptography  # noqa: F401 (whether it is there)
    except ImportError:
        raise Refused(
            "extra_missing", "certificates need cryptography", where="cluster certs", remedy="pip install 'batchscore[cluster]'"
        ) from None
