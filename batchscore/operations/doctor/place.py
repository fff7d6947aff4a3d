"""Checks of the store's folder: what the commit protocol demands of its disk, and whose tables are in it."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from batchscore.operations.doctor.finding import Patient, Remark, fail, ok, warn
from batchscore.operations.doctor.machine import GIB
from batchscore.store import DATABASE, database_name, open_reader

_SHARED: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "afs", "ceph", "glusterfs", "lustre"})


def _nearest(store: Path) -> Path:
    """The store's folder, or the nearest one above it that is there: doctor makes no store."""
    folder = store.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return folder


@contextmanager
def _probe(folder: Path) -> Iterator[Path]:
    """A name for a file in ``folder`` that is gone afterwards."""
    path = folder / f".batchscore-doctor-{uuid.uuid4().hex}"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def writable(patient: Patient) -> Remark | None:
    """The driver and its workers may write there."""
    if patient.store is None:
        return None
    folder = _nearest(patient.store)
    if not os.access(folder, os.W_OK | os.X_OK):
        return fail(f"{folder} cannot be written by this user", "give this user the right to write it, or name another store")
    there = "there" if folder == patient.store.absolute() else "not there yet; it can be made"
    return ok(f"{patient.store}: {there}")


def local_disk(patient: Patient) -> Remark | None:
    """SQLite's write-ahead log needs shared memory between processes: no network file system has it."""
    if patient.store is None or database_name(patient.store) is not None:
        return None
    kind = _file_system(_nearest(patient.store))
    if kind in _SHARED:
        return fail(f"the store is on {kind}", "put the store on a local disk: SQLite loses commits over a network")
    return ok(kind or "unknown")


def _file_system(folder: Path) -> str:
    """The type of the file system that holds ``folder``, by the longest mount point above it."""
    best, found = "", ""
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
        _, at, kind, *_ = line.split(" ")
        at = at.replace("\\040", " ")
        if len(at) >= len(best) and folder.resolve().is_relative_to(at):
            best, found = at, kind
    return found


def free_space(patient: Patient) -> Remark | None:
    """Room for snapshots, rollups and scores."""
    if patient.store is None:
        return None
    free = shutil.disk_usage(_nearest(patient.store)).free
    found = f"{free / GIB:.1f} GiB free"
    return ok(found) if free >= GIB else warn(found, "free space: batchscore clean shows files no run needs")


def durable_writes(patient: Patient) -> Remark | None:
    """Fsync of a file and of its folder: without it a receipt may outlive what it tells of."""
    if patient.store is None:
        return None
    folder = _nearest(patient.store)
    try:
        with _probe(folder) as path:
            with path.open("wb") as stream:
                stream.write(b"batchscore")
                stream.flush()
                os.fsync(stream.fileno())
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
    except OSError as error:
        return fail(f"fsync fails: {os.strerror(error.errno or 0)}", "use another disk for the store")
    return ok("files and folders can be flushed")


def hard_links(patient: Patient) -> Remark | None:
    """A file is published by a hard link to its final name, because that never overwrites."""
    if patient.store is None:
        return None
    try:
        with _probe(_nearest(patient.store)) as path:
            path.write_bytes(b"batchscore")
            with _probe(path.parent) as second:
                os.link(path, second)
    except OSError as error:
        return fail(f"hard links fail: {os.strerror(error.errno or 0)}", "use a disk that has them (ext4, xfs, zfs)")
    return ok("work")


def tables(patient: Patient) -> Remark | None:
    """The version of the store's tables is this code's."""
    if patient.store is None:
        return None
    if database_name(patient.store) is None and not (patient.store / DATABASE).is_file():
        return ok("no store yet; the first run makes it")
    runs = open_reader(patient.store).runs(limit=1)
    return ok("of this version" + (f"; newest run {runs[0].run_id}, {runs[0].state}" if runs else "; no run yet"))
