"""What the commit protocol costs a run, on SQLite and MySQL: the driver in the ledger, attempts in making files durable.

All are shares of the same run, so a busy machine moves them little.

``ledger``      of the wall time: the driver's seconds in each verb of its store, reads too
``files``       of the attempts' other seconds: those in which they waited until a file was durable, read back and hashed, and the
                CPU seconds of the threads that do so while the file is written (`settling`)
``together``    both, of the wall time, as if they never lay beside each other; but the driver commits while workers score, so a
                run takes longer by less
``longer``      what it does take longer by: runs in turn with the same whose syncs do nothing (files, SQLite, MariaDB's log)

Partitions are as large as a spec has them by default. They hold ready-made features, at one as-of: no run writes more beside less
work. The server flushes its log at each commit, as in production.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final
from unittest import mock

import sqlalchemy as sa

from batchscore import files
from batchscore.attempt import attempt
from batchscore.executors.connect import local_cluster
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
from tests.benchmarks.figure import Figure
from tests.mysql_server import PrivateServer

N_PARTITIONS: Final = 40
ROWS_EACH: Final = 50_000
ROUNDS: Final = 5
DURABLE: Final = "durable"
_spent: list[float] = []


def durable_attempt(task: Task) -> Receipt:
    """An attempt, and in its receipt the seconds of fsync, link, folders, fsync of folders, reading back and hashing."""
    _time_files()
    _spent.clear()
    receipt = attempt(task)
    return receipt.model_copy(update={"seconds": {**receipt.seconds, DURABLE: sum(_spent)}})


def _time_files() -> None:
    beside = time.thread_time  # in threads of its own: what they wait costs nothing
    spots = ((files, "publish", time.perf_counter), (files, "_make_folder", time.perf_counter), (Settling, "_follow", beside))
    for owner, name, clock in spots:
        if getattr(owner, name).__name__ != "timed":
            setattr(owner, name, _timed(getattr(owner, name), clock))


def _timed(real: Callable[..., Any], clock: Callable[[], float]) -> Callable[..., Any]:
    inside = threading.local()

    def timed(*given: Any) -> Any:
        if getattr(inside, "already", False):  # it calls itself
            return real(*given)
        begun, inside.already = clock(), True
        try:
            return real(*given)
        finally:
            inside.already = False
            _spent.append(clock() - begun)

    return timed


def on_sqlite(data: Path) -> Iterator[Figure]:
    """The store's tables in SQLite, on the disk of the outputs."""
    yield from _figures("sqlite", data)


def on_mysql(data: Path) -> Iterator[Figure]:
    """The store's tables in MariaDB on this machine."""
    yield from _figures("mysql", data)


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


def _spec(data: Path, store: Path, extra: str) -> RunSpec:
    accounts, model = wide.write_accounts(data, N_PARTITIONS * ROWS_EACH), wide.write_model(data)
    return wide.write_spec(data, accounts, model, store, partition_rows=ROWS_EACH, extra=extra)


def _figures(name: str, data: Path) -> Iterator[Figure]:
    with _new_store(name, data) as (store, extra):
        yield from _shares(name, _spec(data, store, extra), store)
    yield _longer(name, data)


def _shares(name: str, spec: RunSpec, store: Path) -> Iterator[Figure]:
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
        name=f"durability {name}: ledger", ratio=ledger / wall, floor=0.05, higher_is_better=False,
        detail=f"{ledger:.2f} s of {wall:.1f} s, {N_PARTITIONS} partitions of {ROWS_EACH:,} rows ({most})",
    )  # fmt: skip
    yield Figure(
        name=f"durability {name}: files", ratio=durable / worked, floor=0.05, higher_is_better=False,
        detail=f"{durable:.2f} s of {worked:.1f} s of attempts",
    )  # fmt: skip
    yield Figure(
        name=f"durability {name}: together", ratio=(ledger + durable / n_workers) / wall, floor=0.05, higher_is_better=False,
        detail=f"of {wall:.1f} s, on {n_workers} workers",
    )  # fmt: skip


def _longer(name: str, data: Path) -> Figure:
    """What a run takes longer by than one whose syncs do nothing, in turn."""
    walls: dict[bool, list[float]] = {True: [], False: []}
    for number in range(ROUNDS):
        for durable in (True, False) if number % 2 else (False, True):
            with ExitStack() as held:
                store, extra = held.enter_context(_new_store(name, data, flushed=durable))
                spec = _spec(data, store, extra)
                executor = held.enter_context(
                    local_cluster(attempt if durable else unsynced_attempt, n_workers=os.cpu_count() or 1)
                )
                if not durable:
                    held.enter_context(_no_syncs())
                opened = open_store(store, "integer")
                begun = time.perf_counter()
                run(make_plan(spec), executor=executor, store=opened, observer=lambda _event: None)
                walls[durable].append(time.perf_counter() - begun)
    with_syncs, without = (statistics.median(walls[durable]) for durable in (True, False))
    each = "; ".join(" ".join(f"{wall:.1f}" for wall in walls[durable]) for durable in (True, False))
    return Figure(
        name=f"durability {name}: longer", ratio=1 - without / with_syncs, floor=0.05, higher_is_better=False,
        detail=f"medians of {ROUNDS}: {with_syncs:.2f} s, and {without:.2f} s where syncs do nothing ({each})",
    )  # fmt: skip


def unsynced_attempt(task: Task) -> Receipt:
    """An attempt whose files are nowhere but in memory until the system writes them."""
    with _no_syncs():
        return attempt(task)


@contextmanager
def _no_syncs() -> Iterator[None]:
    """In this process, of files and of SQLite."""

    def off(connection: Any, *_: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    sa.event.listen(sa.Pool, "checkout", off)
    with mock.patch.object(os, "fsync", return_value=None), mock.patch.object(os, "fdatasync", return_value=None):
        try:
            yield
        finally:
            sa.event.remove(sa.Pool, "checkout", off)
