"""Stores for the behaviour suite: one fixture, parametrised over every implementation, and values to put in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from batchscore.flag import AccountId, Flag, Reason
from batchscore.keys import IdKind
from batchscore.plan import Partition, Plan, Reference, Rollup, Task
from batchscore.receipt import Output, Receipt
from batchscore.spec import RunSpec
from batchscore.store import Ledger, ReviewDesk, open_desk, open_store

AS_OF = datetime(2026, 1, 15, tzinfo=UTC)
OpenStore = Callable[..., Ledger]


@pytest.fixture(params=["sqlite", pytest.param("mysql", marks=pytest.mark.mysql)])
def database(request: pytest.FixtureRequest) -> str:
    """Which kind of database is under test."""
    return str(request.param)


@pytest.fixture
def store_folder(tmp_path: Path) -> Path:
    """The store's folder; `open_again` gives it its database."""
    return tmp_path / "store"


@pytest.fixture
def open_again(database: str, request: pytest.FixtureRequest, store_folder: Path) -> OpenStore:
    """Opens the same store once more, as another driver would."""

    def opened(kind: IdKind = "integer", *, lease_s: float = 30.0) -> Ledger:
        if database == "mysql" and not store_folder.exists():
            request.getfixturevalue("mysql_store")(store_folder, kind)
        return open_store(store_folder, kind, lease_s=lease_s)

    return opened


@pytest.fixture
def store(open_again: OpenStore) -> Ledger:
    return open_again()


@pytest.fixture
def desk(store: Ledger, store_folder: Path) -> ReviewDesk:
    return open_desk(store_folder)


def make_plan(store_folder: Path, *, name: str = "weekly", **pinned: str) -> Plan:
    spec = RunSpec.model_validate(
        {
            "name": name,
            "feature_set": "features.yaml",
            "sources": {"accounts": {"parquet": {"path": "accounts"}}},
            "bundles": ["bundle"],
            "as_of": ["2026-01-15"],
            "policy": {"queue": "abuse", "budget": 10},
            "release": "latest",
            "store": str(store_folder),
        }
    )
    return Plan(spec=spec, feature_set="{}", bundles=(), pinned={"spec": name, **pinned}, inputs={}, stages=(), observed={})


def make_partitions(n: int, *, world: str = "a") -> list[Partition]:
    work = Rollup(table="mails", feature_set=Reference(path="features.json", sha256="0" * 64), files=())
    return [Partition.of(work, number=number, n_rows=10, reads={"number": number, "world": world}) for number in range(n)]


def make_receipt(partition: Partition, *, attempt: str = "a", sha256: str = "1" * 64, folder: Path | None = None) -> Receipt:
    """A receipt; with ``folder`` its output is really there, and has its digest."""
    payload = b"rows" * 25
    sha256 = sha256 if folder is None else hashlib.sha256(payload).hexdigest()
    path = f"{partition.address}/{attempt}.parquet"
    output = Output(role="rollup", path=path, sha256=sha256, n_rows=10, n_bytes=len(payload))
    if folder is not None:
        (folder / output.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / output.path).write_bytes(payload)
    return Receipt(stage=partition.stage, number=partition.number, address=partition.address, attempt=attempt, outputs=(output,))


def make_task(run_id: str, partition: Partition) -> Task:
    return Task(run_id=run_id, store="store", partition=partition)


def make_flag(account_id: AccountId, *, run_id: str, queue: str = "abuse", rank: int = 1, score: float = 0.75) -> Flag:
    reasons = (Reason(code="mails", sentence="12 mails in 7 days", contribution=0.5),)
    return Flag(
        queue=queue,
        account_id=account_id,
        run_id=run_id,
        as_of=AS_OF,
        rank=rank,
        score=score,
        margin=1.1,
        reasons=reasons,
        bundle_digest="b" * 64,
    )
