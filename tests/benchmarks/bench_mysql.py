"""MySQL in and out, beside the drivers themselves, on one private server: freeze of an accounts table, release of flags."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pymysql
import sqlalchemy as sa

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
N_ROUNDS = 5
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
        rounds = [  # side by side, and the best of each: others may be at work on this machine
            (
                _seconds(lambda: connectorx.read_sql(url, "SELECT * FROM accounts", return_type="arrow")),
                _seconds(lambda: _freeze(Path(folder), wanted)),
                _seconds(lambda: connectorx.read_sql(url, "SELECT * FROM accounts", return_type="arrow", **beside)),
            )
            for _ in range(N_ROUNDS)
        ]
        one, ours, two = (min(times) for times in zip(*rounds, strict=True))
        bare = min(one, two)
        engine = sa.create_engine(url.replace("mysql://", "mysql+pymysql://"))
        pandas = _seconds(lambda: pd.read_sql("SELECT * FROM accounts", engine))
    detail = f"{N_ROWS:,} rows × 9: ours {ours:.2f} s, connectorx {one:.2f} s (in two: {two:.2f} s), pandas {pandas:.1f} s"
    yield Figure(name="freeze vs connectorx", ratio=bare / ours, floor=0.7, higher_is_better=True, detail=detail)
    yield Figure(name="freeze vs pandas", ratio=pandas / ours, floor=8, higher_is_better=True, detail=detail)


def release(_data: Path) -> Iterator[Figure]:
    """Release of flags under the fence, with its look at what stands, against bare executemany of the same rows in key order."""
    with tempfile.TemporaryDirectory(prefix="bs-") as folder, _server(Path(folder)) as server:
        os.environ["BATCHSCORE_URL_REVIEW"] = server.make_database()
        upgrade_database(Path(folder) / "store", "review", "integer")
        store = open_store(Path(folder) / "store", "integer")
        run, _ = store.open(make_plan(Path(folder) / "store"), owner="bench")
        flags = [make_flag(number, run_id=run.run_id, rank=number + 1) for number in range(N_FLAGS)]
        ours = _seconds(lambda: store.release(run, iter(flags)))
        bare = _insert_bare(server, os.environ["BATCHSCORE_URL_REVIEW"].rpartition("/")[2])
    yield Figure(
        name="release vs executemany", ratio=bare / ours, floor=0.8, higher_is_better=True,
        detail=f"{N_FLAGS:,} flags: ours {ours:.1f} s, executemany {bare:.1f} s",
    )  # fmt: skip


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
        freeze_sql(work, folder, f"freeze/{number}", wanted, Brake(live_source(work, Gentle()), just_looked=True))

    ranges = key_ranges(source, wanted.accounts, "integer")
    with ThreadPoolExecutor(Brake(source).most_reads) as workers:
        list(workers.map(attempt, range(len(ranges)), ranges))


def _insert_bare(server: PrivateServer, database: str) -> float:
    """Seconds to insert the flags' rows again, into a copy of the table."""
    server.execute("CREATE TABLE copy LIKE flags", database=database)
    connection = pymysql.connect(
        host=server.host,
        port=server.port,
        user="admin",
        password=str(sa.make_url(server.url(database)).password),
        database=database,
    )
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM flags ORDER BY queue, account_id")
        rows = cursor.fetchall()
        begun = time.perf_counter()
        statement = f"INSERT INTO copy VALUES ({', '.join(['%s'] * len(rows[0]))})"
        for first in range(0, len(rows), ROWS_A_STATEMENT):
            cursor.executemany(statement, rows[first : first + ROWS_A_STATEMENT])
            if first % 10_000 == 0:
                connection.commit()
        connection.commit()
        seconds = time.perf_counter() - begun
    connection.close()
    return seconds


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
