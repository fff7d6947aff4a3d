"""How input is spoilt, and what a whole plan and run made of it: refused, set aside, or the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore.attempt import attempt
from batchscore.errors import BatchscoreError, QuarantineStop, Refused
from batchscore.executors.inline import InlineExecutor
from batchscore.pipeline import run
from batchscore.plan import Plan, Stage
from batchscore.planner import make_plan
from batchscore.ports import RunRow
from batchscore.store import open_reader, open_store
from tests.run_digest import run_digest
from tests.small_world import SmallWorld

N = 60
Change = Callable[[pa.Table], pa.Table]


def go(plan: Plan) -> RunRow:
    return run(
        plan, executor=InlineExecutor(attempt), store=open_store(Path(plan.spec.store), "integer"), observer=lambda _event: None
    )


def digest(world: SmallWorld, row: RunRow) -> str:
    return run_digest(world.store, row.run_id)


def first(world: SmallWorld, table: str = "accounts") -> Path:
    return min((world.folder / table).rglob("*.parquet"))


def change(path: Path, how: Change, **more: Any) -> None:
    pq.write_table(how(pq.ParquetFile(path).read()), path, **more)


def change_all(world: SmallWorld, table: str, how: Change, **more: Any) -> None:
    for path in sorted((world.folder / table).rglob("*.parquet")):
        change(path, how, **more)


def cast(name: str, kind: pa.DataType) -> Change:
    return lambda table: table.set_column(table.column_names.index(name), name, table[name].cast(kind, safe=False))


def put(name: str, values: Any) -> Change:
    return lambda table: table.set_column(table.column_names.index(name), name, values(table[name]))


def rename(old: str, new: str) -> Change:
    return lambda table: table.rename_columns([new if name == old else name for name in table.column_names])


def refused(world: SmallWorld, reason: str) -> str:
    with pytest.raises(Refused) as caught:
        make_plan(world.spec())
    assert caught.value.reason == reason, str(caught.value)
    assert not world.store.exists()
    names_nobody(world, str(caught.value))
    return str(caught.value)


def names_nobody(world: SmallWorld, message: str) -> None:
    """No id of the world stands in a message; ids below 2^40 are too short to search for."""
    for path in (world.folder / "accounts").rglob("*.parquet"):
        try:
            ids = pq.ParquetFile(path).read(columns=["id"])["id"].to_pylist()
        except (OSError, KeyError, ValueError, pa.ArrowException):
            continue
        assert not [key for key in ids if len(str(key)) > 12 and str(key) in message]


def stopped(world: SmallWorld, plan: Plan, reason: str, kind: type[BatchscoreError] = QuarantineStop) -> str:
    with pytest.raises(kind) as caught:
        go(plan)
    message = str(caught.value)
    assert reason in message
    names_nobody(world, message)
    reader = open_reader(world.store)
    assert all(reason in row.reason for row in reader.quarantined(reader.runs()[0].run_id))
    return message


def counts(world: SmallWorld, row: RunRow) -> dict[str, int]:
    reader = open_reader(world.store)
    total: dict[str, int] = {}
    for stage in Stage:
        for receipt in reader.receipts(row.run_id, stage):
            for name, n in receipt.counts.items():
                total[f"{stage} {name}"] = total.get(f"{stage} {name}", 0) + n
    return total
