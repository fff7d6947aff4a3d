"""Opens the executor a command asks for: inline, a local cluster, or a scheduler's address. Closes only what it opened.

A local cluster listens on loopback alone, spawns its workers, one thread a process. A scheduler on another host is used
only over TLS, unless a flag says otherwise; workers that run other versions than the driver are refused with the list.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import signal
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import dask
from distributed import Client, LocalCluster
from distributed.security import Security

from batchscore.errors import Problem, Refused
from batchscore.executors.dask_cluster import DaskExecutor
from batchscore.executors.guarded import Attempt
from batchscore.executors.preparing import Prepare, prepare_workers
from batchscore.settings import library_versions

CONNECT_TIMEOUT_S: Final = 10
GivenClient = Client  # for the types of those that are given one and do not import distributed
_LOCAL: Final = {
    "distributed.worker.multiprocessing-method": "spawn",
    "distributed.scheduler.allowed-failures": 100,  # we count suspects ourselves
}


@contextlib.contextmanager
def local_cluster(attempt: Attempt, *, n_workers: int | None = None, prepare: Prepare | None = None) -> Iterator[DaskExecutor]:
    """An executor on worker processes of this machine, one thread each; ended with the block.

    Each runs ``prepare`` at once (see `preparing`), while the caller plans.
    """
    n_workers = n_workers or os.cpu_count() or 1
    # Ctrl-C reaches the whole process group: workers inherit this, so that the driver alone decides how to stop.
    before = signal.getsignal(signal.SIGINT)
    with dask.config.set(_LOCAL), contextlib.ExitStack() as stack:
        _ignore_interrupts()
        try:
            cluster = stack.enter_context(
                LocalCluster(
                    n_workers=n_workers,
                    threads_per_worker=1,
                    processes=True,
                    host="127.0.0.1",
                    dashboard_address="127.0.0.1:0",
                    silence_logs=False if "version" in dask.config.get("logging", {}) else logging.ERROR,  # a log was asked for
                    memory_limit="auto",
                )
            )
            client = stack.enter_context(Client(cluster, timeout=CONNECT_TIMEOUT_S))
        finally:
            _restore(before)
        yield DaskExecutor(client, attempt, prepared=prepare_workers(client, prepare) if prepare else None)


@contextlib.contextmanager
def remote_cluster(attempt: Attempt, address: str, *, insecure: bool = False) -> Iterator[DaskExecutor]:
    """An executor on the cluster of a running scheduler; the connection is closed with the block, the cluster never.

    TLS certificates come from Dask's own configuration (``distributed.comm.tls``).

    Raises:
        Refused: ``scheduler_insecure``, ``scheduler_unreachable``, ``no_workers``, ``version_skew``.
    """
    with connected(address, insecure=insecure) as client:
        yield given_client(attempt, client, insecure=insecure)


def connected(address: str, *, insecure: bool) -> Client:
    """A client of a running scheduler; the caller closes it.

    Raises:
        Refused: ``scheduler_insecure``, ``scheduler_uncertified``, ``scheduler_unreachable``.
    """
    refuse_open_wire(address, insecure=insecure)
    _refuse_without_certificate(address)
    try:
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


def given_client(attempt: Attempt, client: Client, *, insecure: bool = False) -> DaskExecutor:
    """An executor on a client that somebody else opened, and will close.

    Raises:
        Refused: ``scheduler_insecure``, ``no_workers``, ``version_skew``.
    """
    refuse_open_wire(str(client.scheduler_info(n_workers=0)["address"]), insecure=insecure)
    refuse_version_skew(client)
    return DaskExecutor(client, attempt)


def refuse_open_wire(address: str, *, insecure: bool) -> None:
    """Raise Refused ``scheduler_insecure`` when the address leaves this host without TLS."""
    parts = urlsplit(address)
    if parts.scheme in {"tls", "inproc", "wss"} or insecure or _is_loopback(parts.hostname or ""):
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


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def refuse_version_skew(client: Client) -> None:
    """Raise Refused unless there are workers and each runs this driver's versions of everything that decides bits."""
    with contextlib.suppress(TimeoutError):
        client.wait_for_workers(1, timeout=CONNECT_TIMEOUT_S)
    if not client.nthreads():
        raise Refused("no_workers", "the scheduler has no workers", remedy="start workers: dask worker ADDRESS --nthreads 1")
    answers: dict[str, Any] = client.run(library_versions, on_error="return")
    mine = dict(library_versions())
    problems = []
    for worker, answer in sorted(answers.items()):
        if isinstance(answer, BaseException):
            problems.append(Problem(where=worker, what="does not have this batchscore", remedy="install the same version there"))
            continue
        theirs = dict(answer)
        problems += [
            Problem(where=worker, what=f"{name} {theirs.get(name)}, the driver has {version}")
            for name, version in mine.items()
            if theirs.get(name) != version
        ]
    if problems:
        raise Refused(
            "version_skew",
            "driver and workers differ in what decides the bits of a score",
            problems=tuple(problems),
            remedy="install the same lock file on every host",
        )


def _ignore_interrupts() -> None:
    with contextlib.suppress(ValueError):  # not the main thread: nobody's Ctrl-C comes here
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _restore(handler: Any) -> None:
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, handler)
