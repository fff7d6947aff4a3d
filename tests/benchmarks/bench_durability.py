"""What the commit protocol costs a run, on SQLite and MySQL: the driver in the ledger, attempts in making files durable.

All are shares of the same run, so a busy machine moves them little.

``ledger``      of the wall time: the driver's seconds in each verb of its store, reads too
``files``       of the attempts' other seconds: those in which they waited until a file was durable, read back and hashed, and the
                CPU seconds of the threads that do so while the file is written (`settling`)
``together``    both, of the wall time, as if they never lay beside each other; but the driver commits while workers score, so a
                run takes longer by less

Partitions are as large as a spec has them by default. They hold ready-made features, at one as-of: no run writes more beside less
work. The server flushes its log at each commit, as in production.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from batchscore import files
from batchscore.attempt import attempt
from batchscore.executors.connect import local_cluster
from batchscore.pipeline import run
from batchscore.plan import Stage, Task
from batchscore.planner import make_plan
from batchscore.receipt import Receipt
from batchscore.settling import Settling
from batchscore.store import open_store
from batchscore.store.migrate import upgrade_database
from tests.benchmarks import wide
from tests.benchmarks.bench_engine import TimedStore
from tests.benchmarks.figure import Figure
from tests.mysql_server import PrivateServer

N_PARTITIONS: Final = 40
ROWS_EACH: Final = 50_000
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
    with tempfile.TemporaryDirectory(dir=data) as folder:
        yield from _figures("sqlite", data, Path(folder) / "store", "")


def on_mysql(data: Path) -> Iterator[Figure]:
    """The store's tables in MariaDB on this machine."""
    with ExitStack() as held:
        own = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="bs-")))
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(dir=data)))
        server = PrivateServer(own)
        server.start("--innodb-flush-log-at-trx-commit=1", "--innodb-flush-method=fsync")
        held.callback(server.kill)
        os.environ["BATCHSCORE_URL_REVIEW"] = server.make_database()
        upgrade_database(folder / "store", "review", "integer")
        yield from _figures("mysql", data, folder / "store", "database: review\n")


def _figures(name: str, data: Path, store: Path, extra: str) -> Iterator[Figure]:
    accounts, model = wide.write_accounts(data, N_PARTITIONS * ROWS_EACH), wide.write_model(data)
    spec = wide.write_spec(data, accounts, model, store, partition_rows=ROWS_EACH, extra=extra)
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
