"""Looks at a running cluster for `doctor`: how many workers, and whether this driver reads what each of them writes."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

from distributed import Client

from batchscore.executors.connect import connected
from batchscore.executors.versions import refuse_version_skew


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterLook:
    """``unread``: addresses of workers whose probe this driver could not read; empty when no folder was tried."""

    n_workers: int
    unread: tuple[str, ...]


def look_at_cluster(address: str, folder: Path | None, *, insecure: bool) -> ClusterLook:
    """Connect as a run would; with ``folder``, let each worker write a file there, read it here, and remove it.

    Raises:
        Refused: as `connect.remote_cluster`.
    """
    with connected(address, insecure=insecure) as client:
        refuse_version_skew(client)
        return ClusterLook(n_workers=len(client.nthreads()), unread=_unread(client, folder) if folder else ())


def _unread(client: Client, folder: Path) -> tuple[str, ...]:
    word = uuid.uuid4().hex
    written = client.run(_write_probe, str(folder.absolute()), word, on_error="return")
    return tuple(sorted(worker for worker, path in written.items() if not _is_read(path, word)))


def _write_probe(folder: str, word: str) -> str:
    """On a worker: a new file that holds ``word``; its path."""
    path = Path(folder) / f".batchscore-doctor-{uuid.uuid4().hex}"
    path.write_text(word, encoding="ascii")
    return str(path)


def _is_read(path: object, word: str) -> bool:
    if not isinstance(path, str):
        return False  # the worker could not write
    try:
        return Path(path).read_text(encoding="ascii") == word
    except OSError:
        return False
    finally:
        Path(path).unlink(missing_ok=True)
