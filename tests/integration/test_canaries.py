"""Guarantee 28 over all channels at once: passwords, addresses and ids of a run on MySQL stand where they belong alone."""

from __future__ import annotations

import json
import logging
import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from batchscore.attempt import attempt
from batchscore.errors import BatchscoreError
from batchscore.executors.inline import InlineExecutor
from batchscore.pipeline import run
from batchscore.plan import Task
from batchscore.planner import make_plan
from batchscore.receipt import Receipt
from batchscore.store import open_store
from tests.commands import call
from tests.conftest import MakeMySqlStore
from tests.mysql_accounts import load_accounts
from tests.mysql_server import PASSWORD, MySqlServer
from tests.small_world import SmallWorld, make_small_world

pytestmark = pytest.mark.mysql
DOMAIN = "canary-person.example"  # of every address in the mails
SOURCES = "{accounts: {sql: {url: crm, table: accounts}}, mails: {parquet: {path: mails}}}"
WRONG = "canary-wrong-password"


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """What must not be found. ``ids`` are those long enough to be no accident."""

    ids: frozenset[str]

    def in_any(self, *told: bytes | str) -> list[str]:
        """Names of the canaries that stand in what was told, also where JSON writes them in ASCII."""
        everything = b"\n".join(text if isinstance(text, bytes) else text.encode() for text in told)
        found = [name for name in (PASSWORD, WRONG, DOMAIN) if name.encode() in everything]
        in_ascii = ((identity, json.dumps(identity)[1:-1]) for identity in self.ids)
        return found + [f"id {one}" for one, other in in_ascii if one.encode() in everything or other.encode() in everything]

    def of_the_server_and_mails(self) -> Secrets:
        """Without ids: for what names accounts on purpose."""
        return Secrets(ids=frozenset())


@pytest.fixture
def world(tmp_path: Path, mysql_server: MySqlServer, mysql_store: MakeMySqlStore, monkeypatch: pytest.MonkeyPatch) -> SmallWorld:
    """Accounts and review queue on MySQL, recipients that are addresses, one mail of nobody."""
    world = make_small_world(tmp_path, n_accounts=120, kind="string")
    for path in (world.folder / "mails").rglob("*.parquet"):
        mails = pq.read_table(path)
        addressed = pc.binary_join_element_wise(mails["recipient"], pa.scalar(f"@{DOMAIN}"), "")
        mails = mails.set_column(mails.schema.get_field_index("recipient"), "recipient", addressed)
        pq.write_table(mails, path)
    load_accounts(world, mysql_server, monkeypatch)
    mysql_store(world.folder / "store", "string")
    world.spec(sources=SOURCES, database="review")
    return world


@pytest.fixture
def secrets(world: SmallWorld) -> Secrets:
    ids = pq.read_table(world.folder / "accounts")["id"].to_pylist()
    return Secrets(ids=frozenset(identity for identity in ids if len(identity) > 12))


def said_of(error: BaseException) -> Iterable[str | bytes]:
    """All that a person or another process gets of an error."""
    return (str(error), repr(error), "".join(traceback.format_exception(error)), pickle.dumps(error))


def test_a_run_tells_no_password_address_or_id(world: SmallWorld, secrets: Secrets) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("batchscore"), "run", world.spec_path, "--workers", "2", "--log", "run.log",
         "--metrics-textfile", "small.prom"],
        cwd=world.folder, env=os.environ, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    log, metrics = (world.folder / "run.log").read_bytes(), (world.folder / "small.prom").read_bytes()
    assert secrets.in_any(done.stdout, done.stderr, log, metrics) == []

    run_id = json.loads(call("status", "--store", world.store, "--json").stdout)["runs"][0]["run_id"]
    told = [call(*words, *more).output for words in commands(world, run_id) for more in ((), ("--json",))]
    assert secrets.in_any(*told) == []

    named = [call("queue", "--store", world.store, *more).output for more in ((), ("--json",))]
    assert secrets.in_any(*named) != [], "the queue names accounts: the canaries are ones that would be seen"
    assert secrets.of_the_server_and_mails().in_any(*named) == []

    kept = [path.read_bytes() for path in world.store.rglob("*") if path.is_file()]
    assert kept
    assert [name for name in secrets.of_the_server_and_mails().in_any(*kept) if name != DOMAIN] == []
    plans = [path.read_bytes() for path in world.store.rglob("*.json")]
    assert secrets.of_the_server_and_mails().in_any(*plans) == []


def commands(world: SmallWorld, run_id: str) -> list[tuple[str | Path, ...]]:
    """Those that tell of a run and name no account."""
    at = ("--store", world.store)
    return [
        ("plan", world.spec_path),
        ("check", world.spec_path),
        ("status", *at),
        ("status", run_id, *at),
        ("report", run_id, *at),
        ("verify", run_id, *at),
        ("undo", run_id, *at),
    ]


def test_tasks_receipts_and_loggers_carry_none(world: SmallWorld, secrets: Secrets, caplog: pytest.LogCaptureFixture) -> None:
    """A task names the first and last key of its range, of text ids too: these are all the ids in it."""
    caplog.set_level(logging.DEBUG)
    carried: list[bytes] = []
    bounds: set[str] = set()

    def noted(task: Task) -> Receipt:
        receipt = attempt(task)
        carried.extend((pickle.dumps(task), pickle.dumps(receipt)))
        work = task.partition.work.model_dump()
        bounds.update(str(span.get(end)) for span in (work, work.get("keys", {})) for end in ("low", "high"))
        return receipt

    plan = make_plan(world.spec(sources=SOURCES, database="review"))
    run(plan, executor=InlineExecutor(noted), store=open_store(world.store, "string"), observer=lambda _event: None)
    assert secrets.in_any(caplog.text, plan.model_dump_json()) == []
    assert [name for name in secrets.in_any(*carried) if name.removeprefix("id ") not in bounds] == []


def test_what_fails_tells_no_secret(
    world: SmallWorld, secrets: Secrets, mysql_server: MySqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = os.environ["BATCHSCORE_URL_CRM"]
    told: list[str | bytes] = []
    for url in (
        right.replace(PASSWORD, WRONG),
        right.replace(f":{mysql_server.port}", ":1"),
        right + "_gone",
        f"mysql//{PASSWORD}@",
    ):
        monkeypatch.setenv("BATCHSCORE_URL_CRM", url)
        with pytest.raises(BatchscoreError) as caught:
            call("plan", world.spec_path)
        told.extend(said_of(caught.value))
    assert secrets.in_any(*told) == []
