"""Benchmarks of features: rolling up against a bare pyarrow group-by, a backfill in one pass, the next day's sweep, memory."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.spec import RunSpec, read_spec
from tests.benchmarks.figure import Figure

ROUNDS = 3
START = datetime(2026, 1, 1, tzinfo=UTC)
N_DAYS = 60
N_DATES = 30
MOMENT = pa.timestamp("us", "UTC")


@dataclass(frozen=True, kw_only=True)
class Load:
    """How many accounts there are, and how many mails they send a day."""

    n_accounts: int
    mails_a_day: int


BUSY = Load(n_accounts=10_000, mails_a_day=100_000)  # ten mails an account and day: rolling up is most of the work
QUIET = Load(n_accounts=100_000, mails_a_day=33_000)  # the simulated world's third of a mail: scoring is most of it

FEATURES = """\
feature_set: mail
version: 1
account_id: integer
accounts: {table: accounts, key: account_id, created_at: created_at}
events: [{table: mails, key: account_id, event_at: event_at, known_at: known_at}]
features:
  mails_1d:       {count: mails, window: 1d}
  mails_7d:       {count: mails, window: 7d}
  mails_28d:      {count: mails, window: 28d}
  bytes_7d:       {sum: mails.bytes, window: 7d}
  bytes_mean_28d: {mean: mails.bytes, window: 28d}
  bytes_max_28d:  {max: mails.bytes, window: 28d}
  bytes_min_7d:   {min: mails.bytes, window: 7d}
  rcpt_28d:       {sum: mails.n_rcpt, window: 28d}
  recipients_28d: {distinct: mails.recipient, window: 28d}
  active_28d:     {days_active: mails, window: 28d}
  quiet:          {time_since: mails}
  age:            {age: created_at}
"""
NAMES = [line.split(":")[0].strip() for line in FEATURES.split("features:\n")[1].splitlines()]


def mails_of_day(day: int, n: int, n_accounts: int = BUSY.n_accounts) -> pa.Table:
    """A day's mails in the order they came: account, moment, size, recipients, one of half a million addresses; 3 % are late."""
    rng = np.random.default_rng(day)
    seconds = np.sort(rng.integers(0, 86_400_000_000, n))
    known = int((START - datetime(1970, 1, 1, tzinfo=UTC) + day * timedelta(days=1)) / timedelta(microseconds=1)) + seconds
    late = np.where(rng.random(n) < 0.03, rng.integers(1, 4, n), 0) * 86_400_000_000
    return pa.table(
        {
            "account_id": rng.integers(0, n_accounts, n).astype(np.uint64),
            "event_at": pa.array(known - late).cast(MOMENT),
            "known_at": pa.array(known).cast(MOMENT),
            "bytes": rng.integers(200, 200_000, n),
            "n_rcpt": rng.geometric(0.5, n).astype(np.int32),
            "recipient": rng.integers(0, 500_000, n),
        }
    )


def write_input(folder: Path, n_days: int, load: Load) -> Path:
    """Accounts, ``n_days`` files of mails, the feature set and a model of its features, below ``folder``."""
    from batchscore.features.feature_set import read_feature_set
    from batchscore.models.bundle import ReasonTemplate
    from batchscore.models.pack import About, pack_bundle
    from batchscore.models.training import train

    shutil.rmtree(folder, ignore_errors=True)
    (folder / "mails").mkdir(parents=True)
    made = [START - timedelta(days=int(days)) for days in np.random.default_rng(1).integers(0, 900, load.n_accounts)]
    pq.write_table(
        pa.table({"account_id": np.arange(load.n_accounts), "created_at": pa.array(made, MOMENT)}), folder / "accounts.parquet"
    )
    for day in range(n_days):
        append_day(folder, day, load)
    (folder / "features.yaml").write_text(FEATURES)
    rng = np.random.default_rng(2)
    rows = rng.gamma(1.5, 20.0, (2_000, len(NAMES))).astype(np.float32)
    pack_bundle(
        train(rows, (rows[:, 1] > rows[:, 2]).astype(np.int32), NAMES, n_trees=50, depth=4),
        folder / "bundle",
        features=NAMES,
        feature_set_digest=read_feature_set(folder / "features.yaml").digest,
        golden=pa.table({name: rows[:32, place] for place, name in enumerate(NAMES)}),
        about=About(name="mail", reasons={name: ReasonTemplate(code=name, sentence=f"{name} is {{value}}") for name in NAMES}),
    )
    return folder


def append_day(folder: Path, day: int, load: Load) -> None:
    mails = mails_of_day(day, load.mails_a_day, load.n_accounts)
    pq.write_table(mails, folder / "mails" / f"mails-{START + timedelta(days=day):%Y-%m-%d}.parquet")


def spec_of(folder: Path, store: Path, as_of: str, *, partition_rows: int = 10_000, extra: str = "") -> RunSpec:
    """A spec over the input of ``folder``; it releases nothing where ``extra`` lines do not say so."""
    path = folder / f"spec-{store.name}.yaml"
    path.write_text(
        "name: mail\nfeature_set: features.yaml\nbundles: [bundle]\npolicy: {queue: bench, budget: 20}\n"
        "sources: {accounts: {parquet: {path: accounts.parquet}}, mails: {parquet: {path: mails}}}\n"
        f"as_of: {as_of}\nstore: {store}\npartition_rows: {partition_rows}\n{extra}"
    )
    return read_spec(path)


def seconds_of(folder: Path, store: Path, as_of: str) -> float:
    """Seconds of a whole run, plan to proof, in this process."""
    from batchscore.attempt import attempt
    from batchscore.executors.inline import InlineExecutor
    from batchscore.pipeline import run
    from batchscore.planner import make_plan
    from batchscore.store import open_store

    start = time.perf_counter()
    plan = make_plan(spec_of(folder, store, as_of))
    row = run(plan, executor=InlineExecutor(attempt), store=open_store(store, "integer"), observer=lambda _event: None)
    assert row.state == "finished"
    return time.perf_counter() - start


def date_of(day: int) -> str:
    return f"{START + timedelta(days=day):%Y-%m-%d}"


def roll_up_file(folder: Path, mails: Path, store: Path) -> float:
    """Seconds of a rollup attempt at one file: checked pages, canonical rows, partials, a durable file."""
    from batchscore.attempt import attempt
    from batchscore.features.feature_set import read_feature_set
    from batchscore.files import write_named_by_digest
    from batchscore.plan import Partition, Rollup, Task
    from batchscore.sources.parquet_files import list_inputs

    (folder / "features.yaml").write_text(FEATURES)
    held = write_named_by_digest(
        read_feature_set(folder / "features.yaml").frozen_json().encode(), store / "feature_sets", "json"
    )
    files, _ = list_inputs(mails)
    partition = Partition.of(Rollup(table="mails", feature_set=held, files=files), number=0, n_rows=0, reads={})
    start = time.perf_counter()
    attempt(Task(run_id="r-bench", store=str(store), partition=partition))
    return time.perf_counter() - start


def bare_group_by(mails: Path, out: Path) -> float:
    """Seconds of the least that gives the same aggregates with pyarrow, on one thread as an attempt has: read, group, write."""
    start = time.perf_counter()
    table = pq.read_table(mails, use_threads=False)
    grains = {name: pc.floor_temporal(table[name], unit="day") for name in ("event_at", "known_at")}
    keyed = table.append_column("event_grain", grains["event_at"]).append_column("known_grain", grains["known_at"])
    grouped = keyed.group_by(["account_id", "event_grain", "known_grain"], use_threads=False).aggregate(
        [
            ("event_at", "count"), ("event_at", "max"), ("bytes", "count"), ("bytes", "sum"), ("bytes", "min"), ("bytes", "max"),
            ("n_rcpt", "count"), ("n_rcpt", "sum"), ("recipient", "distinct"),
        ]
    )  # fmt: skip
    pq.write_table(grouped.sort_by("account_id"), out, compression="lz4")
    return time.perf_counter() - start


def rollup_vs_pyarrow(data: Path) -> Iterator[Figure]:
    """A file of 2M mails of 10,000 accounts: mails/s of a rollup attempt over mails/s of a bare group-by of the same."""
    n = 2_000_000
    mails = data / f"mails-{n}.parquet"
    if not mails.exists():
        pq.write_table(mails_of_day(0, n), mails)
    pairs = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(dir=data) as store:
            pairs.append((roll_up_file(data, mails, Path(store)), bare_group_by(mails, Path(store) / "bare.parquet")))
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    yield Figure(
        name="rollup vs pyarrow",
        ratio=statistics.median(bare / mine for mine, bare in pairs),
        floor=0.5,
        higher_is_better=True,
        detail=f"rollup {n / ours:,.0f} mails/s, bare {n / theirs:,.0f} mails/s, one thread, {ROUNDS} interleaved rounds",
    )


def rollup_memory(data: Path) -> Iterator[Figure]:
    """Peak memory of a rollup attempt at a file of 25M mails over one of 2.5M: runs of at most a million bound it."""
    peaks = []
    for n in (2_500_000, 25_000_000):
        mails = data / f"mails-{n}.parquet"
        if not mails.exists():
            with pq.ParquetWriter(mails, mails_of_day(0, 1).schema) as writer:
                for day in range(n // 500_000):
                    writer.write_table(mails_of_day(day, 500_000), row_group_size=100_000)
        with tempfile.TemporaryDirectory(dir=data) as store:
            command = [sys.executable, "-m", "tests.benchmarks.one_rollup", str(data), str(mails), store]
            peaks.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    yield Figure(
        name="rollup memory",
        ratio=peaks[1] / peaks[0],
        floor=1.1,
        higher_is_better=False,
        detail=f"peak {peaks[0] / 2**20:,.0f} MiB at 2.5M mails, {peaks[1] / 2**20:,.0f} MiB at 25M",
    )


def backfill_30_dates(data: Path) -> Iterator[Figure]:
    """A backfill of 30 dates over 60 days of mail against 30 sweeps of one date that reuse nothing (three are run)."""
    folder = write_input(data / "features-input", N_DAYS, BUSY)
    first, last = N_DAYS - N_DATES + 1, N_DAYS
    with tempfile.TemporaryDirectory(dir=data) as stores:
        together = seconds_of(folder, Path(stores) / "all", f"{{from: {date_of(first)}, to: {date_of(last)}, every: 1d}}")
        each = [seconds_of(folder, Path(stores) / f"day-{day}", date_of(day)) for day in (first, (first + last) // 2, last)]
    apart = statistics.mean(each) * N_DATES
    yield Figure(
        name="backfill 30 dates",
        ratio=together / apart,
        floor=0.25,
        higher_is_better=False,
        detail=f"{together:.1f} s at once, {apart:.1f} s as {N_DATES} sweeps ({statistics.mean(each):.1f} s each, of 3 run)",
    )


def sweep_next_day(data: Path) -> Iterator[Figure]:
    """The sweep of a day after a sweep over 60 days of mail in the same store: one new file of mail, all accounts scored."""
    for name, load in (("sweep next day", BUSY), ("sweep next day, little mail", QUIET)):
        folder = write_input(data / "sweep-input", N_DAYS, load)
        with tempfile.TemporaryDirectory(dir=data) as stores:
            store = Path(stores) / "store"
            first = seconds_of(folder, store, date_of(N_DAYS))
            later = []
            for day in range(N_DAYS, N_DAYS + ROUNDS):
                append_day(folder, day, load)
                later.append(seconds_of(folder, store, date_of(day + 1)))
        yield Figure(
            name=name,
            ratio=statistics.median(later) / first,
            floor=0.2,
            higher_is_better=False,
            detail=f"first {first:.2f} s over {N_DAYS} days, next {statistics.median(later):.2f} s "
            f"({load.n_accounts:,} accounts, {load.mails_a_day:,} mails a day)",
        )
