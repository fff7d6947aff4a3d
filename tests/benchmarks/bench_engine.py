"""Benchmarks of the engine: what the protocol costs, what a partition costs the driver, what resuming a finished run costs."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from batchscore.plan import Partition, Reference, Rollup, Stage, Task
from batchscore.receipt import Output, Receipt
from tests.benchmarks import wide
from tests.benchmarks.figure import Figure

N_PARTITIONS = 200
ROWS_EACH = 10_000
MANY = 10_000


class TimedStore:
    """A store that counts the driver's seconds in each of its verbs, and in those of its reader."""

    def __init__(self, store: Any, seconds: defaultdict[str, float] | None = None) -> None:
        self._store = store
        self.seconds: defaultdict[str, float] = defaultdict(float) if seconds is None else seconds

    def __getattr__(self, verb: str) -> Any:
        found = getattr(self._store, verb)
        if not callable(found) or verb in {"renew", "requested"}:  # the lease is kept by its own thread, beside the walk
            return found
        if verb == "reader":
            return lambda: TimedStore(found(), self.seconds)

        def timed(*args: Any, **named: Any) -> Any:
            with self._counted(verb):
                given = found(*args, **named)
            return self._each(verb, given) if isinstance(given, Iterator) else given

        return timed

    @contextmanager
    def _counted(self, verb: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[verb] += time.perf_counter() - start

    def _each(self, verb: str, rows: Iterator[Any]) -> Iterator[Any]:
        ended = object()
        while True:
            with self._counted(verb):
                row = next(rows, ended)
            if row is ended:
                return
            yield row


def ledger_overhead(data: Path) -> Iterator[Figure]:
    """Share of a run's wall time that the driver spends in the ledger: 200 partitions of 10k rows, on this machine's cores."""
    from batchscore.attempt import attempt
    from batchscore.executors.connect import local_cluster
    from batchscore.pipeline import run
    from batchscore.planner import make_plan
    from batchscore.store import open_store

    accounts, model = wide.write_accounts(data, N_PARTITIONS * ROWS_EACH), wide.write_model(data)
    with tempfile.TemporaryDirectory(dir=data) as store, local_cluster(attempt) as executor:
        timed = TimedStore(open_store(Path(store), "integer"))
        spec = wide.write_spec(data, accounts, model, Path(store), partition_rows=ROWS_EACH)
        start = time.perf_counter()
        run(make_plan(spec), executor=executor, store=timed, observer=lambda _event: None)
        wall = time.perf_counter() - start
    spent = sum(timed.seconds.values())
    most = ", ".join(f"{verb} {seconds:.2f} s" for verb, seconds in sorted(timed.seconds.items(), key=lambda verb: -verb[1])[:3])
    yield Figure(
        name="ledger overhead",
        ratio=spent / wall,
        floor=0.05,
        higher_is_better=False,
        detail=f"{spent:.2f} s of {wall:.1f} s, {N_PARTITIONS} partitions of {ROWS_EACH:,} rows ({most})",
    )


def driver_time(data: Path) -> Iterator[Figure]:
    """Milliseconds of driver time a partition at 10,000: lay out, commit in the batches a window gives, read progress."""
    from batchscore.store import open_store

    with tempfile.TemporaryDirectory(dir=data) as folder:
        store = open_store(Path(folder), "integer")
        handle, _ = store.open(_any_plan(data, Path(folder)), owner="bench")
        start = time.perf_counter()
        store.lay_out(handle, Stage.ROLLUP, [_partition(number) for number in range(MANY)])
        left = store.unfinished(handle, Stage.ROLLUP)
        for first in range(0, MANY, 2):  # two workers: a batch of two is the usual one
            store.commit(handle, [_receipt(partition) for partition in left[first : first + 2]])
        store.reader().stages(handle.run_id)
        each = (time.perf_counter() - start) / MANY * 1_000
    yield Figure(
        name="driver ms a partition at 10,000", ratio=each, floor=5.0, higher_is_better=False, detail="milliseconds, not a ratio"
    )


def resume_finished(data: Path) -> Iterator[Figure]:
    """Seconds to take up a finished run of 200 partitions: plan, find that it is finished, do nothing."""
    from batchscore.attempt import attempt
    from batchscore.executors.inline import InlineExecutor
    from batchscore.pipeline import run
    from batchscore.planner import make_plan
    from batchscore.store import open_store

    attempts: list[Task] = []

    def counted(task: Task) -> Receipt:
        attempts.append(task)
        return attempt(task)

    accounts, model = wide.write_accounts(data, 200_000, n_files=4), wide.write_model(data, n_trees=20)
    with tempfile.TemporaryDirectory(dir=data) as folder:
        spec = wide.write_spec(data, accounts, model, Path(folder), partition_rows=1_000)

        def walk() -> float:
            start = time.perf_counter()
            run(
                make_plan(spec),
                executor=InlineExecutor(counted),
                store=open_store(Path(folder), "integer"),
                observer=lambda _event: None,
            )
            return time.perf_counter() - start

        walk()
        attempts.clear()
        seconds = walk()
    assert not attempts, "a finished run has nothing to do"
    yield Figure(
        name="resume finished, seconds", ratio=seconds, floor=5.0, higher_is_better=False, detail="seconds, not a ratio; 0 tasks"
    )


def _any_plan(data: Path, store: Path) -> Any:
    from batchscore.planner import make_plan

    accounts, model = wide.write_accounts(data, 200_000, n_files=4), wide.write_model(data, n_trees=20)
    return make_plan(wide.write_spec(data, accounts, model, store))


def _partition(number: int) -> Partition:
    work = Rollup(table="mails", feature_set=Reference(path="/store/feature_sets/x.json", sha256="0" * 64), files=())
    return Partition.of(work, number=number, n_rows=10_000, reads={"number": number})


def _receipt(partition: Partition) -> Receipt:
    output = Output(
        role="rollup", path=f"{partition.address}/{'0' * 32}.parquet", sha256="1" * 64, n_rows=10_000, n_bytes=1 << 20
    )
    return Receipt(
        stage=partition.stage,
        number=partition.number,
        address=partition.address,
        attempt="a" * 32,
        outputs=(output,),
        counts={"rows": 10_000},
        keys={},
        seconds={"rollup": 0.5},
    )
