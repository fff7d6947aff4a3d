"""What the commit protocol costs a run, on SQLite and MySQL: the driver in the ledger, attempts in making files durable.

``ledger``      of the wall time: the driver's seconds in each verb of its store, reads too
``files``       of the attempts' other seconds: those in which they waited until a file was durable, read back and hashed
``together``    both, of the wall time, as if they never lay beside other work; but the driver commits while workers score, and
                one process works while another waits: a run takes longer by less
``longer``      what it does take longer by: runs in turn with the same whose syncs do nothing (files, SQLite, MariaDB's log), and
                whose files are neither read back nor hashed when they are written

The first three are shares of one run, so a busy machine moves them little; but on one who waited for a disk waits for a core too,
and under real-time priority until another has had its 100 ms of it: measure without.

There are two runs. One scores ready-made features at one as-of, and has nothing to do but walk trees: no run writes more beside
less work. ``sweep`` is the usual one: a first sweep over 30 days of mail, a mail of each account every third day. Partitions are
as large as a spec has them by default. The server flushes its log at each commit, as in production.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest import mock

import sqlalchemy as sa

from batchscore import files
from batchscore.attempt import attempt
from batchscore.executors.connect import local_cluster
from batchscore.executors.dask_cluster import DaskExecutor
from batchscore.pipeline import run
from batchscore.plan import Stage, Task
from batchscore.planner import make_plan
from batchscore.receipt import Receipt
from batchscore.settling import Settling
from batchscore.spec import RunSpec
from batchscore.store import open_store
from batchscore.store.migrate import upgrade_database
from tests.benchmarks import wide
from tests.benchmarks.bench_engine import TimedStore
from tests.benchmarks.bench_features import Load, date_of, spec_of, write_input
from tests.benchmarks.figure import Figure
from tests.mysql_server import PrivateServer

ROWS_EACH: Final = 50_000
READY_MADE_ROWS: Final = 40 * ROWS_EACH
SWEPT: Final = Load(n_accounts=300_000, mails_a_day=100_000)
SWEPT_DAYS: Final = 30
ROUNDS: Final = 7
DURABLE: Final = "durable"
_spent: list[float] = []


def durable_attempt(task: Task) -> Receipt:
    """An attempt, and in its receipt the seconds of fsync, link, folders, fsync of folders, reading back and hashing."""
    _time_files()
    _spent.clear()
    receipt = attempt(task)
    return receipt.model_copy(update={"seconds": {**receipt.seconds, DURABLE: sum(_spent)}})


def _time_files() -> None:
    for name in ("publish", "_make_folder"):
        if getattr(files, name).__name__ != "timed":
            setattr(files, name, _timed(getattr(files, name)))


def _timed(real: Callable[..., Any]) -> Callable[..., Any]:
    inside = threading.local()

    def timed(*given: Any) -> Any:
        if getattr(inside, "already", False):  # it calls itself
            return real(*given)
        begun, inside.already = time.perf_counter(), True
        try:
            return real(*given)
        finally:
            inside.already = False
            _spent.append(time.perf_counter() - begun)

    return timed


def on_sqlite(data: Path) -> Iterator[Figure]:
    """The store's tables in SQLite, on the disk of the outputs."""
    for workload in WORKLOADS:
        yield from _figures("sqlite", workload, data)


def on_mysql(data: Path) -> Iterator[Figure]:
    """The store's tables in MariaDB on this machine."""
    for workload in WORKLOADS:
        yield from _figures("mysql", workload, data)


@dataclass(frozen=True, slots=True)
class Workload:
    """What is run: ``spec`` takes the folder of the inputs, that of the store, and lines that say the store's database."""

    name: str
    says: str
    spec: Callable[[Path, Path, str], RunSpec]


def _ready_made(data: Path, store: Path, extra: str) -> RunSpec:
    accounts, model = wide.write_accounts(data, READY_MADE_ROWS), wide.write_model(data)
    return wide.write_spec(data, accounts, model, store, partition_rows=ROWS_EACH, extra=extra)


def _sweep(data: Path, store: Path, extra: str) -> RunSpec:
    folder = data / "durability-sweep"
    if not (folder / "bundle").exists():
        write_input(folder, SWEPT_DAYS, SWEPT)
    return spec_of(folder, store, date_of(SWEPT_DAYS), partition_rows=ROWS_EACH, extra=extra)


WORKLOADS: Final = (
    Workload("", f"{READY_MADE_ROWS:,} rows of ready-made features", _ready_made),
    Workload(", sweep", f"{SWEPT.n_accounts:,} accounts, {SWEPT_DAYS * SWEPT.mails_a_day:,} mails", _sweep),
)


@contextmanager
def _new_store(database: str, data: Path, *, flushed: bool = True) -> Iterator[tuple[Path, str]]:
    """A store's folder, and what a spec says of its database; not ``flushed``: MariaDB keeps its log in memory for a second."""
    with ExitStack() as held:
        store = Path(held.enter_context(tempfile.TemporaryDirectory(dir=data))) / "store"
        if database == "sqlite":
            yield store, ""
            return
        server = PrivateServer(Path(held.enter_context(tempfile.TemporaryDirectory(prefix="bs-"))))
        server.start(f"--innodb-flush-log-at-trx-commit={int(flushed)}", "--innodb-flush-method=fsync")
        held.callback(server.kill)
        os.environ["BATCHSCORE_URL_REVIEW"] = server.make_database()
        upgrade_database(store, "review", "integer")
        yield store, "database: review\n"


def _figures(database: str, workload: Workload, data: Path) -> Iterator[Figure]:
    with _new_store(database, data) as (store, extra):
        yield from _shares(database, workload, workload.spec(data, store, extra), store)
    yield _longer(database, workload, data)


def _shares(database: str, workload: Workload, spec: RunSpec, store: Path) -> Iterator[Figure]:
    n_workers = os.cpu_count() or 1
    with local_cluster(durable_attempt, n_workers=n_workers) as executor:
        timed = TimedStore(open_store(store, "integer"))
        begun = time.perf_counter()
        row = run(make_plan(spec), executor=executor, store=timed, observer=lambda _event: None)
        wall = time.perf_counter() - begun
    ledger = sum(timed.seconds.values())
    of_attempts = [receipt.seconds for stage in Stage for receipt in timed.reader().receipts(row.run_id, stage)]
    durable = sum(seconds[DURABLE] for seconds in of_attempts)
    worked = sum(sum(seconds.values()) - seconds[DURABLE] for seconds in of_attempts)
    most = ", ".join(f"{verb} {seconds:.2f} s" for verb, seconds in sorted(timed.seconds.items(), key=lambda verb: -verb[1])[:3])
    yield Figure(
        name=f"durability {database}: ledger{workload.name}", ratio=ledger / wall, floor=0.05, higher_is_better=False,
        detail=f"{ledger:.2f} s of {wall:.1f} s, {workload.says} ({most})",
    )  # fmt: skip
    yield Figure(
        name=f"durability {database}: files{workload.name}", ratio=durable / worked, floor=0.05, higher_is_better=False,
        detail=f"{durable:.2f} s of {worked:.1f} s of attempts",
    )  # fmt: skip
    together = (ledger + durable / n_workers) / wall
    yield Figure(
        name=f"durability {database}: together{workload.name}", ratio=together, floor=0.05, higher_is_better=False,
        detail=f"of {wall:.1f} s, on {n_workers} workers",
    )  # fmt: skip


def _longer(database: str, workload: Workload, data: Path) -> Figure:
    """What a run takes longer by than one without the protocol, in turn, on workers that have loaded the model."""
    walls: dict[bool, list[float]] = {True: [], False: []}
    with local_cluster(attempt, n_workers=os.cpu_count() or 1) as executor:
        _wall(database, workload, data, executor, durable=True)
        for number in range(ROUNDS):
            for durable in (True, False) if number % 2 else (False, True):
                walls[durable].append(_wall(database, workload, data, executor, durable=durable))
    saved = statistics.median(1 - without / with_all for with_all, without in zip(walls[True], walls[False], strict=True))
    with_all, without = (statistics.median(walls[durable]) for durable in (True, False))
    each = "; ".join(" ".join(f"{wall:.1f}" for wall in walls[durable]) for durable in (True, False))
    return Figure(
        name=f"durability {database}: longer{workload.name}", ratio=saved, floor=0.05, higher_is_better=False,
        detail=f"median of {ROUNDS} pairs; {with_all:.2f} s, {without:.2f} s without: {1 - without / with_all:.1%} ({each})",
    )  # fmt: skip


def _wall(database: str, workload: Workload, data: Path, executor: DaskExecutor, *, durable: bool) -> float:
    """Seconds of a run."""
    with ExitStack() as held:
        store, extra = held.enter_context(_new_store(database, data, flushed=durable))
        spec = workload.spec(data, store, extra)
        if not durable:
            held.enter_context(_careless())
        opened = open_store(store, "integer")
        os.sync()  # what an earlier run left to the system is none of this one's
        begun = time.perf_counter()
        attempts = executor.with_attempt(attempt if durable else careless_attempt)
        run(make_plan(spec), executor=attempts, store=opened, observer=lambda _event: None)
        return time.perf_counter() - begun


def careless_attempt(task: Task) -> Receipt:
    """An attempt whose files are nowhere but in memory until the system writes them, and whose digests are made up."""
    with _careless():
        return attempt(task)


@contextmanager
def _careless() -> Iterator[None]:
    """In this process: no sync of files and of SQLite; a written file has the digest of its name, and no digest is compared.

    Who reads a file still hashes it: that the input is what it was is no part of the protocol.
    """

    def off(connection: Any, *_: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    def of_name(_settling: Settling, final: Path) -> str:
        return hashlib.sha256(final.name.encode()).hexdigest()

    nothing = mock.Mock(return_value=None)
    sa.event.listen(sa.Pool, "checkout", off)
    with ExitStack() as held:
        held.callback(sa.event.remove, sa.Pool, "checkout", off)
        for owner, verb, instead in (
            (os, "fsync", nothing),
            (Settling, "grown", nothing),
            (Settling, "sha256", of_name),
            (files, "_require_equal", nothing),
        ):
            held.enter_context(mock.patch.object(owner, verb, instead))
        yield
