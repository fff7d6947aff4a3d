"""Checks of this machine and its Python. They read; what they write goes to a temporary folder and is gone again."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import sqlite3
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from packaging.requirements import Requirement

from batchscore.operations.doctor.finding import Patient, Remark, fail, ok, warn
from batchscore.settings import MAX_PARTITION_BYTES

GIB: Final = 1 << 30
MIN_FILES: Final = 1_024
MIN_SQLITE: Final = (3, 37, 0)
_INSTALL: Final = "install the lock file: make env, or pip install -r requirements.lock"


def python(_patient: Patient) -> Remark:
    """3.11 or newer, and not a build that changes how things run."""
    found = ".".join(map(str, sys.version_info[:3]))
    return ok(found) if sys.version_info >= (3, 11) else fail(found, "use Python 3.11 or newer: make env PYTHON=python3.12")


def libraries(_patient: Patient) -> Remark:
    """Every core dependency at or above the floor that pyproject.toml states."""
    wrong = []
    needed = [Requirement(text) for text in requires("batchscore") or [] if "extra ==" not in text]
    for requirement in needed:
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            if requirement.name == "xgboost":
                continue  # xgboost-cpu may stand in its place: the next check
            wrong.append(f"{requirement.name} is absent")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} {found}, needs {requirement.specifier}")
    return fail("; ".join(wrong), _INSTALL) if wrong else ok(f"{len(needed)} libraries at or above their floors")


def extras(_patient: Patient) -> Remark:
    """What the extras add: a run goes on without, but slower or with less. A version below an extra's floor counts as absent."""
    wanted = [Requirement(text) for text in requires("batchscore") or [] if "extra ==" in text]
    absent = [
        (requirement.name, str(requirement.marker).partition("extra == ")[2].strip("\"'"))
        for requirement in wanted
        if not requirement.specifier.contains(_version(requirement.name) or "0", prereleases=True)
    ]
    if not absent:
        return ok(f"all there: {', '.join(requirement.name for requirement in wanted)}")
    named = ",".join(sorted({extra for _, extra in absent}))
    return warn(f"absent: {', '.join(f'{name} (extra {extra})' for name, extra in absent)}", f"pip install 'batchscore[{named}]'")


def xgboost_once(_patient: Patient) -> Remark:
    """One of xgboost and xgboost-cpu: both hold the same module, and the later install wins file by file."""
    found = [f"{name} {_version(name)}" for name in ("xgboost", "xgboost-cpu") if _version(name)]
    if len(found) == 1:
        return ok(found[0])
    if found:
        return fail(" and ".join(found), "pip uninstall xgboost xgboost-cpu, then install one of them")
    return fail("neither xgboost nor xgboost-cpu", _INSTALL)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def cores(patient: Patient) -> Remark:
    """Workers against the cores this process may use and the container's limit on them."""
    allowed = float(len(os.sched_getaffinity(0)))
    quota, _, period = _cgroup("cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit():
        allowed = min(allowed, int(quota) / int(period))
    found = f"{allowed:g} of {os.cpu_count()} cores usable, {patient.n_workers} worker(s)"
    if patient.n_workers > allowed:
        return warn(found, f"run with --workers {max(1, int(allowed))}: more would take turns")
    return ok(found)


def memory(patient: Patient) -> Remark:
    """Memory against the largest partition times the workers."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    total = pages * size
    limit = _cgroup("memory.max")
    total = min(total, int(limit)) if limit.isdigit() else total
    needed = patient.n_workers * MAX_PARTITION_BYTES
    found = f"{total / GIB:.1f} GiB for {patient.n_workers} worker(s) of at most {MAX_PARTITION_BYTES / GIB:.0f} GiB each"
    return ok(found) if total >= needed else warn(found, "use fewer --workers, or a smaller partition_rows in the spec")


def _cgroup(name: str) -> str:
    try:
        return (Path("/sys/fs/cgroup") / name).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def temporary_space(_patient: Patient) -> Remark:
    """Room in the temporary folder: Dask's workers spill there."""
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    found = f"{free / GIB:.1f} GiB free in {folder}"
    return ok(found) if free >= GIB else warn(found, "free space, or set TMPDIR to a larger disk")


def open_files(_patient: Patient) -> Remark:
    """The limit of open files: a driver holds a few for each worker and input."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return ok(f"{limit:,} may be open") if limit >= MIN_FILES else warn(f"only {limit} may be open", "ulimit -n 4096")


def utf8(_patient: Patient) -> Remark:
    """File names and output as UTF-8."""
    found = (sys.getfilesystemencoding(), getattr(sys.stdout, "encoding", None) or "utf-8")
    if all(name.casefold().replace("-", "") == "utf8" for name in found):
        return ok("file names and output are UTF-8")
    return warn(f"file names {found[0]}, output {found[1]}", "export LC_ALL=C.UTF-8 (or PYTHONUTF8=1)")


def zones(_patient: Patient) -> Remark:
    """A zone database, for naive timestamps with a declared zone."""
    try:
        ZoneInfo("Europe/Berlin")
    except ZoneInfoNotFoundError:
        return fail("no zone database", "install the system's tzdata, or pip install tzdata")
    return ok("zones by name are known")


def loopback(_patient: Patient) -> Remark:
    """A port on 127.0.0.1: the local cluster talks over it."""
    try:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
    except OSError as error:
        return fail(f"cannot listen on 127.0.0.1: {os.strerror(error.errno or 0)}", "run with --inline, or allow loopback")
    return ok("a port on 127.0.0.1 can be had")


def clock(_patient: Patient) -> Remark:
    """The wall clock is set, and agrees with the clock of SQLite, by which leases run."""
    connection = sqlite3.connect(":memory:")
    (theirs,) = connection.execute("SELECT (julianday('now') - 2440587.5) * 86400.0").fetchone()
    connection.close()
    apart = abs(time.time() - theirs)
    if time.gmtime().tm_year < 2025:
        return fail(f"it is {time.strftime('%Y-%m-%d', time.gmtime())}", "set the clock (timedatectl set-ntp true)")
    return ok("set, and level with SQLite's") if apart < 1 else warn(f"{apart:.1f} s from SQLite's", "see why the clock jumps")


def sqlite(_patient: Patient) -> Remark:
    """A SQLite that is new enough, and its write-ahead log."""
    if sqlite3.sqlite_version_info < MIN_SQLITE:
        return fail(sqlite3.sqlite_version, f"use a Python with SQLite {'.'.join(map(str, MIN_SQLITE))} or newer")
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(Path(folder) / "probe.db")
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.close()
    return (
        ok(f"{sqlite3.sqlite_version}, WAL") if mode == "wal" else warn(f"journal mode {mode}", "put the store on a local disk")
    )
