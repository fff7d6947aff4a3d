"""What the commit protocol costs a run, on SQLite and MySQL: what it takes longer by than one without it.

Runs in turn with the same whose syncs do nothing (files, SQLite, MariaDB's log), and whose files are neither read back nor hashed
when they are written. The median of the pairs counts. Beside it stands what the driver spent in the ledger, and attempts in
settling their files: no cost where it lies beside other work, as the driver commits while workers score, and the next attempt
computes while the last one waits for the disk. Under real-time priority who waited for the disk waits for a core, too: measure
without.

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


def on_sqlite(data: Path) -> Iterator[Figure]:
    """The store's tables in SQLite, on the disk of the outputs."""
    for workload in WORKLOADS:
        yield _figure("sqlite", workload, data)


def on_mysql(data: Path) -> Iterator[Figure]:
    """The store's tables in MariaDB on this machine."""
    for workload in WORKLOADS:
        yield _figure("mysql", workload, data)


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


def _figure(database: str, workload: Workload, data: Path) -> Figure:
    with _new_store(database, data) as (store, extra):
        spent = _spent(workload, workload.spec(data, store, extra), store)
    return _longer(database, workload, data, spent)


def _spent(workload: Workload, spec: RunSpec, store: Path) -> str:
    """What a run spends in the driver's calls of its store, reads too, and of the seconds of attempts until files are durable."""
    with local_cluster(attempt, n_workers=os.cpu_count() or 1) as executor:
        timed = TimedStore(open_store(store, "integer"))
        begun = time.perf_counter()
        row = run(make_plan(spec), executor=executor, store=timed, observer=lambda _event: None)
        wall = time.perf_counter() - begun
    of_attempts = [receipt.seconds for stage in Stage for receipt in timed.reader().receipts(row.run_id, stage)]
    settled, worked = (sum(map(each, of_attempts)) for each in (lambda parts: parts["settle"], lambda parts: sum(parts.values())))
    return (
        f"{workload.says}; beside other work: ledger {sum(timed.seconds.values()):.2f} s of {wall:.1f} s, "
        f"settling {settled:.2f} s of {worked:.1f} s of attempts"
    )


def _longer(database: str, workload: Workload, data: Path, spent: str) -> Figure:
    """What a run takes longer by than one without the protocol, in turn, on workers that have loaded the model.

    Each kind has workers of its own: attempts overlap, so a process is careless from its first to its last. The others wait.
    """
    walls: dict[bool, list[float]] = {True: [], False: []}
    n_workers = os.cpu_count() or 1
    with local_cluster(attempt, n_workers=n_workers) as careful, local_cluster(careless_attempt, n_workers=n_workers) as careless:
        executors = {True: careful, False: careless}
        for durable, executor in executors.items():
            _wall(database, workload, data, executor, durable=durable)
        for number in range(ROUNDS):
            for durable in (True, False) if number % 2 else (False, True):
                walls[durable].append(_wall(database, workload, data, executors[durable], durable=durable))
    saved = statistics.median(1 - without / with_all for with_all, without in zip(walls[True], walls[False], strict=True))
    with_all, without = (statistics.median(walls[durable]) for durable in (True, False))
    each = "; ".join(" ".join(f"{wall:.1f}" for wall in walls[durable]) for durable in (True, False))
    medians = f"{with_all:.2f} s, {without:.2f} s without: {1 - without / with_all:.1%}"
    return Figure(
        name=f"durability {database}{workload.name}", ratio=saved, floor=0.05, higher_is_better=False,
        detail=f"median of {ROUNDS} pairs; {medians} ({each}); {spent}",
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
        run(make_plan(spec), executor=executor, store=opened, observer=lambda _event: None)
        return time.perf_counter() - begun


_ever_careless: Final = ExitStack()  # of a worker


def careless_attempt(task: Task) -> Receipt:
    """An attempt whose files are nowhere but in memory until the system writes them, and whose digests are made up."""
    if Settling.sha256 is not _of_name:
        _ever_careless.enter_context(_careless())
    return attempt(task)


def _of_name(_settling: Settling, final: Path) -> str:
    return hashlib.sha256(final.name.encode()).hexdigest()


@contextmanager
def _careless() -> Iterator[None]:
    """In this process: no sync of files and of SQLite; a written file has the digest of its name, and no digest is compared.

    Who reads a file still hashes it: that the input is what it was is no part of the protocol.
    """

    def off(connection: Any, *_: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    nothing = mock.Mock(return_value=None)
    sa.event.listen(sa.Pool, "checkout", off)
    with ExitStack() as held:
        held.callback(sa.event.remove, sa.Pool, "checkout", off)
        for owner, verb, instead in (
            (os, "fsync", nothing),
            (Settling, "grown", nothing),
            (Settling, "sha256", _of_name),
            (files, "_require_equal", nothing),
        ):
            held.enter_context(mock.patch.object(owner, verb, instead))
        yield
