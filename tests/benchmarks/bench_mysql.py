"""MySQL in and out, beside the drivers themselves, on one private server: freeze of an accounts table, release of flags."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import pymysql
import sqlalchemy as sa

from batchscore.drafts import Drafts
from batchscore.features.feature_set import FeatureSet
from batchscore.plan import KeyBound, Reference
from batchscore.sources.brake import Brake
from batchscore.sources.freeze import freeze_sql, live_range, live_source
from batchscore.sources.sql import key_ranges
from batchscore.spec import Gentle, SqlSource
from batchscore.store import open_store
from batchscore.store.migrate import upgrade_database
from tests.benchmarks.figure import Figure
from tests.contract.store.conftest import make_flag, make_plan
from tests.mysql_server import PrivateServer

N_ROWS = 1_000_000
N_FLAGS = 200_000
N_ROUNDS = 9
N_RELEASES = 5
PAUSE_S = 0.5
ROWS_A_STATEMENT = 500
COLUMNS = ("a", "b", "c", "d", "e", "f", "g", "h")  # beside the key: integers, doubles, unsigned and nulls mixed


def freeze(_data: Path) -> Iterator[Figure]:
    """Freeze to sorted, checksummed Parquet against bare connectorx (rows into memory, nothing written) and pandas.read_sql.

    Bare connectorx reads over one connection or over two, as two workers would: the better of both counts.
    """
    import connectorx

    with tempfile.TemporaryDirectory(prefix="bs-") as folder, _server(Path(folder)) as server:
        url = server.make_database()
        os.environ["BATCHSCORE_URL_LIVE"] = url
        _fill(server, url.rpartition("/")[2])
        wanted = FeatureSet.model_validate(
            {
                "feature_set": "x", "version": 1, "account_id": "integer",
                "accounts": {"table": "accounts", "key": "id", "immutable": list(COLUMNS)},
                "features": {name: {"column": name} for name in COLUMNS},
            }
        )  # fmt: skip
        beside: dict[str, Any] = {"partition_on": "id", "partition_num": 2}
        rounds = [  # side by side: others may be at work on this machine
            (
                _seconds(lambda: connectorx.read_sql(url, "SELECT * FROM accounts", return_type="arrow")),
                _seconds(lambda: _freeze(Path(folder), wanted)),
                _seconds(lambda: connectorx.read_sql(url, "SELECT * FROM accounts", return_type="arrow", **beside)),
            )
            for _ in range(N_ROUNDS)
        ]
        ratio = median(min(one, two) / ours for one, ours, two in rounds)
        one, ours, two = (median(times) for times in zip(*rounds, strict=True))
        engine = sa.create_engine(url.replace("mysql://", "mysql+pymysql://"))
        pandas = _seconds(lambda: pd.read_sql("SELECT * FROM accounts", engine))
    detail = (
        f"{N_ROWS:,} rows × 9, medians of {N_ROUNDS}: ours {ours:.2f} s, connectorx {one:.2f} s (in two: {two:.2f} s), "
        f"pandas {pandas:.1f} s"
    )
    yield Figure(name="freeze vs connectorx", ratio=ratio, floor=0.7, higher_is_better=True, detail=detail)
    yield Figure(name="freeze vs pandas", ratio=pandas / ours, floor=8, higher_is_better=True, detail=detail)


def release(_data: Path) -> Iterator[Figure]:
    """Release of flags under the fence, with its look at what stands, against bare executemany of the same rows in key order.

    Each round has a database of its own, and each way goes first in every other one. The first round is not counted.
    """
    with tempfile.TemporaryDirectory(prefix="bs-") as folder, _server(Path(folder)) as server:
        rows = _release_once(server, Path(folder) / "store", [])[2]
        rounds = [
            _release_once(server, Path(folder) / f"store {number}", rows, bare_first=number % 2 == 1)[:2]
            for number in range(N_RELEASES)
        ]
    ours, bare = (median(times) for times in zip(*rounds, strict=True))
    ratios = [bare / ours for ours, bare in rounds]
    yield Figure(
        name="release vs executemany", ratio=median(ratios), floor=0.8, higher_is_better=True,
        detail=f"{N_FLAGS:,} flags, medians of {N_RELEASES}: ours {ours:.1f} s, executemany {bare:.1f} s; the rounds: "
        f"{', '.join(f'{ratio:.2f}' for ratio in ratios)}",
    )  # fmt: skip


def _release_once(
    server: PrivateServer, folder: Path, rows: Sequence[tuple[object, ...]], *, bare_first: bool = False
) -> tuple[float, float, list[tuple[object, ...]]]:
    """Seconds of ours, seconds of inserting ``rows`` bare, and what ours inserted."""
    url = os.environ["BATCHSCORE_URL_REVIEW"] = server.make_database()
    database = url.rpartition("/")[2]
    upgrade_database(folder, "review", "integer")
    store = open_store(folder, "integer")
    run, _ = store.open(make_plan(folder), owner="bench")
    flags = [make_flag(number, run_id=run.run_id, rank=number + 1) for number in range(N_FLAGS)]
    server.execute("CREATE TABLE copy LIKE flags", database=database)
    bare = _insert_bare(server, database, rows) if bare_first else 0.0
    ours = _seconds(lambda: store.release(run, iter(flags)))
    if not bare_first:
        bare = _insert_bare(server, database, rows)
    inserted = server.execute("SELECT * FROM flags ORDER BY queue, account_id", database=database)
    assert len(inserted) == N_FLAGS
    server.execute(f"DROP DATABASE {database}")
    return ours, bare, inserted


@contextmanager
def _server(folder: Path) -> Iterator[PrivateServer]:
    server = PrivateServer(folder)
    server.start("--innodb-buffer-pool-size=512M")
    try:
        yield server
    finally:
        server.kill()


def _fill(server: PrivateServer, database: str) -> None:
    server.execute(
        "CREATE TABLE accounts (id BIGINT UNSIGNED PRIMARY KEY, a INT NOT NULL, b BIGINT, c DOUBLE, d DOUBLE, e TINYINT(1), "
        "f SMALLINT UNSIGNED, g BIGINT UNSIGNED, h FLOAT)",
        f"INSERT INTO accounts SELECT seq * 7919, seq % 1000, IF(seq % 20, seq * 3, NULL), RAND(seq), RAND(seq) * 1e6, seq % 2, "
        f"seq % 60000, 18446744073709551615 - seq, RAND(seq) FROM seq_1_to_{N_ROWS}",
        "ANALYZE TABLE accounts",
        database=database,
    )


def _freeze(folder: Path, wanted: FeatureSet) -> None:
    """As a run with a worker for each core does: as many ranges at a time as the cap on connections lets through."""
    source = SqlSource(url="live", table="accounts")

    def attempt(number: int, bounds: tuple[KeyBound | None, KeyBound | None]) -> None:
        work = live_range(source, "accounts", Reference(path="", sha256=""), bounds, "bench")
        with Drafts(folder, f"freeze/{number}") as drafts:
            freeze_sql(work, drafts, wanted, Brake(live_source(work, Gentle()), just_looked=True))
            drafts.publish()

    ranges = key_ranges(source, wanted.accounts, "integer")
    with ThreadPoolExecutor(Brake(source).most_reads) as workers:
        list(workers.map(attempt, range(len(ranges)), ranges))


def _insert_bare(server: PrivateServer, database: str, rows: Sequence[tuple[object, ...]]) -> float:
    """Seconds to insert rows of flags into a copy of their table."""
    connection = pymysql.connect(
        host=server.host,
        port=server.port,
        user="admin",
        password=str(sa.make_url(server.url(database)).password),
        database=database,
    )
    with connection.cursor() as cursor:
        begun = time.perf_counter()
        for first in range(0, len(rows), ROWS_A_STATEMENT):
            statement = f"INSERT INTO copy VALUES ({', '.join(['%s'] * len(rows[0]))})"
            cursor.executemany(statement, rows[first : first + ROWS_A_STATEMENT])
            if first % 10_000 == 0:
                connection.commit()
        connection.commit()
        seconds = time.perf_counter() - begun
    connection.close()
    return seconds


def _seconds(work: Callable[[], object]) -> float:
    """After a pause, so that none pays for what the one before left to the kernel (memory, its share of the cores)."""
    time.sleep(PAUSE_S)
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
