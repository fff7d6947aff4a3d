"""Opens the executor a command asks for: inline, a local cluster, or a scheduler's address. Closes only what it opened.

A local cluster listens on loopback alone, spawns its workers, one thread a process. A scheduler on another host is used
only over TLS, unless a flag says otherwise; workers that run other versions than the driver are refused with the list.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from urllib.parse import urlsplit

from distributed import Client
from distributed.client import ClosedClientError
from distributed.security import Security
from distributed.versions import VersionMismatchWarning

from batchscore.errors import Refused
from batchscore.executors.dask_cluster import DaskExecutor
from batchscore.executors.guarded import Attempt
from batchscore.executors.local import CLOSE_WITHIN_S, CONNECT_TIMEOUT_S, OwnCluster
from batchscore.executors.preparing import Preparation, Prepare
from batchscore.executors.stalls import STALL_S
from batchscore.executors.versions import refuse_version_skew
from batchscore.loopback import is_loopback

GivenClient = Client  # for the types of those that are given one and do not import distributed


@contextlib.contextmanager
def local_cluster(
    attempt: Attempt, *, n_workers: int | None = None, prepare: Prepare | None = None, stall_s: float = STALL_S
) -> Iterator[DaskExecutor]:
    """An executor on worker processes of this machine, one thread each; ended with the block, hard where an error leaves it.

    Each runs ``prepare`` at once (see `preparing`), while the caller plans. ``stall_s``: an attempt that takes longer is given
    up, and its worker ended; a cluster that says nothing for so long is replaced.
    """
    with OwnCluster(n_workers) as own:
        preparation = Preparation(own.client, prepare) if prepare else None
        try:
            yield DaskExecutor(own.client, attempt, preparation=preparation, stall_s=stall_s, replace=own.replace)
        finally:
            if preparation is not None:
                preparation.end(CLOSE_WITHIN_S)


@contextlib.contextmanager
def remote_cluster(attempt: Attempt, address: str, *, insecure: bool = False, stall_s: float = STALL_S) -> Iterator[DaskExecutor]:
    """An executor on the cluster of a running scheduler; the connection is closed with the block, the cluster never.

    ``stall_s``: an attempt that takes longer is given up, and tried elsewhere.

    TLS certificates come from Dask's own configuration (``distributed.comm.tls``).

    Raises:
        Refused: ``scheduler_insecure``, ``scheduler_uncertified``, ``scheduler_unreachable``, ``no_workers``, ``version_skew``.
    """
    client = connected(address, insecure=insecure)
    try:
        yield given_client(attempt, client, insecure=insecure, stall_s=stall_s)
    finally:
        try:
            client.close(timeout=CLOSE_WITHIN_S)
        except TimeoutError:
            client.status = "closed"  # the scheduler hangs; else the client tries again when the process ends, and is waited for


def connected(address: str, *, insecure: bool) -> Client:
    """A client of a running scheduler; the caller closes it.

    Raises:
        Refused: ``scheduler_insecure``, ``scheduler_uncertified``, ``scheduler_unreachable``.
    """
    refuse_open_wire(address, insecure=insecure)
    _refuse_without_certificate(address)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VersionMismatchWarning)  # whoever needs equal versions refuses others, with the list
            return Client(address, timeout=CONNECT_TIMEOUT_S, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        tls = address.startswith("tls:")
        raise Refused(
            "scheduler_unreachable",
            f"no scheduler answers at {address} within {CONNECT_TIMEOUT_S} s"
            + (", or it and we do not trust each other's certificates" if tls else ""),
            where="--scheduler",
            remedy="start it (dask scheduler), "
            + ("compare the CA of both and when certificates end, " if tls else "")
            + "or leave --scheduler out to use this machine",
        ) from error


def given_client(attempt: Attempt, client: Client, *, insecure: bool = False, stall_s: float = STALL_S) -> DaskExecutor:
    """An executor on a client that somebody else opened, and will close.

    Raises:
        Refused: ``scheduler_insecure``, ``scheduler_unreachable``, ``no_workers``, ``version_skew``.
    """
    if client.status == "closed":
        raise _unanswering()
    try:
        refuse_open_wire(str(client.scheduler_info(n_workers=0)["address"]), insecure=insecure)
        _refuse_no_workers(client)
        refuse_version_skew(client)
    except (OSError, ClosedClientError) as error:  # it is lost, or hangs, since the client connected
        raise _unanswering() from error
    return DaskExecutor(client, attempt, stall_s=stall_s)


def _unanswering() -> Refused:
    return Refused(
        "scheduler_unreachable",
        "the scheduler does not answer any more",
        where="--scheduler",
        remedy="start it (dask scheduler), with its workers",
    )


def refuse_open_wire(address: str, *, insecure: bool) -> None:
    """Raise Refused ``scheduler_insecure`` when the address leaves this host without TLS."""
    parts = urlsplit(address)
    if parts.scheme in {"tls", "inproc", "wss"} or insecure or is_loopback(parts.hostname or ""):
        return
    raise Refused(
        "scheduler_insecure",
        "the scheduler is on another host and the connection is not TLS",
        where=f"--scheduler {address}",
        remedy="use tls://… with certificates, or pass --insecure to accept that anybody on the network can run code",
    )


def _refuse_without_certificate(address: str) -> None:
    """Raise Refused ``scheduler_uncertified`` when the scheduler wants a certificate and we have none to show."""
    if not address.startswith("tls:"):
        return
    try:
        shown = Security().get_connection_args("client")["ssl_context"] is not None
        what = "Dask's configuration names no CA or no certificate of a client"
    except OSError as error:  # ssl.SSLError is one
        shown, what = False, f"the certificates that Dask's configuration names cannot be used: {error.strerror}"
    if not shown:
        raise Refused(
            "scheduler_uncertified",
            what,
            where=f"--scheduler {address}",
            remedy="set DASK_DISTRIBUTED__COMM__TLS__CA_FILE, …__TLS__CLIENT__CERT and …__TLS__CLIENT__KEY to the ca.pem, "
            "client.pem and client.key of batchscore cluster certs",
        )


def _refuse_no_workers(client: Client) -> None:
    with contextlib.suppress(TimeoutError):
        client.wait_for_workers(1, timeout=CONNECT_TIMEOUT_S)
    if not client.nthreads():
        raise Refused("no_workers", "the scheduler has no workers", remedy="start workers: dask worker ADDRESS --nthreads 1")
