"""Events of a live MySQL table: the bits of the same events in Parquet, closed ranges read once for all runs, open ones anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from distributed import Client

from batchscore.errors import Held, Refused
from batchscore.explore.explorer import Explorer
from batchscore.freeze_layout import lay_out_freeze
from batchscore.layout import Definitions
from batchscore.operations.rejects import n_rejected
from batchscore.plan import FreezeEvents, Stage, Task
from batchscore.planner import make_plan
from batchscore.sampling import sample_features
from batchscore.sources import mysql, mysql_ranges
from batchscore.store import open_reader
from tests.commands import call
from tests.integration.test_mysql_runs import run_it
from tests.integration.test_retry import failing
from tests.mysql_server import MySqlServer
from tests.run_digest import run_digest
from tests.small_world import START, SmallWorld, make_small_world

pytestmark = pytest.mark.mysql
LIVE = "{{accounts: {{parquet: {{path: accounts}}}}, mails: {{sql: {{url: crm, table: mails, key: [seq], reread: {reread}}}}}}}"
COLUMNS = ["id", "at", "known", "bytes", "recipient", "label"]


class Mails:
    """The world's mails as a table, in the order in which they became known."""

    def __init__(self, world: SmallWorld, server: MySqlServer, url: str) -> None:
        self._world, self._server, self._database = world, server, url.rpartition("/")[2]
        key = "BIGINT UNSIGNED" if world.kind == "integer" else "VARCHAR(64) COLLATE utf8mb4_general_ci"
        self.execute(
            f"CREATE TABLE mails (seq BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, id {key}, at TIMESTAMP(6) NULL, "
            "known TIMESTAMP(6) NULL, bytes INT, recipient VARCHAR(40) CHARACTER SET latin1, label ENUM('ham', 'spam'))"
        )
        self.insert(pq.read_table(world.folder / "mails", columns=COLUMNS).sort_by([("known", "ascending")]))

    def execute(self, *statements: str) -> None:
        self._server.execute("SET time_zone = '+00:00'", *statements, database=self._database)

    def insert(self, mails: pa.Table) -> None:
        rows = (
            f"(_utf8mb4 X'{str(row['id']).encode().hex()}', '{row['at']:%Y-%m-%d %H:%M:%S.%f}', "
            f"'{row['known']:%Y-%m-%d %H:%M:%S.%f}', {row['bytes']}, '{row['recipient']}', '{row['label']}')"
            for row in mails.to_pylist()
        )
        self.execute(f"INSERT INTO mails ({', '.join(COLUMNS)}) VALUES {', '.join(rows)}")

    def add_late(self, *, to_files: bool) -> None:
        """One more day of mail, of which half happened long before; in the files too."""
        first = pq.read_table(self._world.folder / "mails", columns=COLUMNS).slice(0, 60)
        known = pa.array([START + timedelta(days=13, hours=23)] * 60, pa.timestamp("us", "UTC"))
        late = first.set_column(2, "known", known)
        self.insert(late)
        if to_files:
            pq.write_table(late, self._world.folder / "mails" / "late.parquet")


@pytest.fixture
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallWorld:
    monkeypatch.setattr(mysql_ranges, "RANGE_ROWS", 800)
    monkeypatch.setattr(mysql, "FIRST_PAGE_ROWS", 300)
    return make_small_world(tmp_path, kind=getattr(request, "param", "integer"))


@pytest.fixture
def mails(
    world: SmallWorld, mysql_server: MySqlServer, source_reader: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> Mails:
    url = mysql_server.make_database()
    monkeypatch.setenv("BATCHSCORE_URL_CRM", source_reader(url))
    return Mails(world, mysql_server, url)


def live_run(world: SmallWorld, store: str, **changes: str) -> tuple[str, list[FreezeEvents]]:
    """The digest of a run on the live table, and the ranges of it that were read."""
    tasks: list[Task] = []
    plan = make_plan(world.spec(sources=LIVE.format(reread=changes.pop("reread", "1d")), store=store, **changes))
    row = run_it(plan, world.kind, tasks)
    assert row.state == "finished"
    read = [task.partition.work for task in tasks if isinstance(task.partition.work, FreezeEvents)]
    return run_digest(world.folder / store, row.run_id), read


def files_run(world: SmallWorld, store: str, **changes: str) -> str:
    row = run_it(make_plan(world.spec(store=store, **changes)), world.kind)
    return run_digest(world.folder / store, row.run_id)


LATER = {"as_of": "[2026-01-09, 2026-01-15]"}


@pytest.mark.parametrize("world", ["integer", "string"], indirect=True)
def test_a_second_run_reads_open_ranges_alone_and_both_have_the_bits_of_files(world: SmallWorld, mails: Mails) -> None:
    of_files = files_run(world, "files")
    assert of_files == live_run(world, "live")[0]
    mails.add_late(to_files=True)
    mails.execute("UPDATE mails SET bytes = 1 WHERE seq = 1")  # long closed: nobody reads it again
    later, read = live_run(world, "live", **LATER)
    assert later == files_run(world, "files", **LATER)
    assert [work.closed for work in read] == [False]
    assert read[0].low == 2400


def test_rows_within_the_declared_horizon_are_read_anew(world: SmallWorld, mails: Mails) -> None:
    plan = make_plan(world.spec(sources=LIVE.format(reread="3650d"), store="live"))
    definitions = Definitions.of(plan).kept(plan)
    laid_out = [lay_out_freeze(plan, definitions, run_id, {}) for run_id in ("r-1", "r-2")]
    ranges = [[part for part in parts if isinstance(part.work, FreezeEvents)] for parts in laid_out]
    assert [part.work.high for part in ranges[0] if isinstance(part.work, FreezeEvents)] == [800, 1600, 2400, 2800]
    assert not {part.address for part in ranges[0]} & {part.address for part in ranges[1]}


def test_a_table_that_grew_without_end_is_cut_further_and_its_first_ranges_stay(world: SmallWorld, mails: Mails) -> None:
    live_run(world, "live")
    for _ in range(20):
        mails.add_late(to_files=False)
    _, read = live_run(world, "live", **LATER)
    assert [(work.low, work.closed) for work in read] == [(2400, True), (3200, False)]
    _, read = live_run(world, "live", as_of="[2026-01-10]")
    assert [work.low for work in read] == [3200]


def test_another_filter_reads_closed_ranges_anew_and_has_the_bits_of_the_rows_it_keeps(world: SmallWorld, mails: Mails) -> None:
    where = "1d, where: [[label, ==, ham], [bytes, is not, null]]"
    _, all_of_them = live_run(world, "all", **LATER)
    filtered, read = live_run(world, "all", reread=where, **LATER)
    assert [(work.low, work.high, work.closed) for work in read] == [(work.low, work.high, work.closed) for work in all_of_them]
    assert any(work.closed for work in read)
    again, read_again = live_run(world, "all", reread=f"{where}, gentle: {{page_s: 0.4}}", **LATER)
    assert again == filtered
    assert not any(work.closed for work in read_again)
    for path in (world.folder / "mails").rglob("*.parquet"):
        rows = pq.ParquetFile(path).read()
        pq.write_table(rows.filter(pc.equal(rows["label"].cast(pa.string()), "ham")), path)
    assert files_run(world, "files", **LATER) == filtered


def test_an_empty_table_counts_as_no_mail(world: SmallWorld, mails: Mails) -> None:
    mails.execute("DELETE FROM mails")
    for file in (world.folder / "mails").rglob("*.parquet"):
        pq.write_table(pq.read_table(file).slice(0, 0), file)
    assert live_run(world, "live")[0] == files_run(world, "files")


def test_the_gate_judges_the_days_of_a_live_table(world: SmallWorld, mails: Mails) -> None:
    gate = "{mails: {lag: 2h, factor: 5, by: label}}"
    live_run(world, "live", gate=gate)
    mails.execute(f"DELETE FROM mails WHERE known >= '{START + timedelta(days=12):%Y-%m-%d}'")
    with pytest.raises(Held, match="input_held"):
        live_run(world, "other", gate=gate)


def test_features_to_look_at_are_those_of_files(world: SmallWorld, mails: Mails) -> None:
    as_of = datetime.fromisoformat("2026-01-10T00:00:00+00:00")
    _, of_files = sample_features(world.spec(), as_of, 40)
    _, live = sample_features(world.spec(sources=LIVE.format(reread="1d")), as_of, 40)
    assert live.to_pandas().equals(of_files.to_pandas())


def test_rows_that_cannot_be_used_are_rejected_once(world: SmallWorld, mails: Mails) -> None:
    mails.execute("UPDATE mails SET id = NULL WHERE seq = 3", "UPDATE mails SET known = '2020-01-01' WHERE seq = 4")
    plan = make_plan(world.spec(sources=LIVE.format(reread="1d"), store="live"))
    row = run_it(plan, world.kind)
    assert n_rejected(open_reader(world.folder / "live"), row.run_id) == 2


@pytest.mark.parametrize(
    ("change", "key", "said"),
    [
        ("", "[]", "says not along which key"),
        ("ALTER TABLE mails MODIFY seq BIGINT NULL, DROP PRIMARY KEY, ADD INDEX (seq)", "[seq]", "may be null"),
        ("", "[known]", "may be null"),
        ("ALTER TABLE mails MODIFY bytes DOUBLE", "[seq]", "a sum of floats"),
        ("ALTER TABLE mails DROP COLUMN recipient", "[seq]", "column_missing"),
    ],
)
def test_a_table_that_cannot_be_read_as_declared_is_refused(
    change: str, key: str, said: str, world: SmallWorld, mails: Mails
) -> None:
    mails.execute(*([change] if change else []))
    sources = LIVE.format(reread="1d").replace("[seq]", key)
    with pytest.raises(Refused, match=said):
        make_plan(world.spec(sources=sources))


def test_a_retry_over_a_live_table_shows_what_is_read_again_and_does_it(world: SmallWorld, mails: Mails) -> None:
    world.spec(sources=LIVE.format(reread="1d"))
    with failing((Stage.SCORE, 1)):
        assert call("run", world.spec_path, "--inline").code == 3
    run_id = open_reader(world.store).runs()[0].run_id
    asked = ("retry", run_id, "--quarantined", "--store", world.store, "--inline")
    stages = {stage["stage"]: stage for stage in json.loads(call(*asked, "--json").stdout)["stages"]}
    assert (stages["freeze"]["n_reused"], stages["freeze"]["n_redone"]) == (4, 1), "the accounts' files and three closed ranges"
    assert 0 < stages["freeze"]["n_rows"] < 2_800
    assert (stages["rollup"]["n_reused"], stages["rollup"]["n_redone"]) == (3, 0)
    assert "at most" in stages["score"]["why"]
    shown = call(*asked).stdout
    assert "a live table is never the same input twice" in shown
    done = call(*asked, "--apply")
    assert done.code == 0
    assert "4 of 5 partitions were done before" in done.output
    assert open_reader(world.store).runs()[0].state == "finished"


@pytest.mark.parametrize("world", ["integer", "string"], indirect=True)
def test_an_explorer_shows_the_events_that_the_freeze_left_as_it_shows_those_of_files(
    world: SmallWorld, mails: Mails, client: Client
) -> None:
    rows = {
        sources: run_it(make_plan(world.spec(store=sources, **changes)), world.kind)
        for sources, changes in {"files": {}, "live": {"sources": LIVE.format(reread="1d")}}.items()
    }
    order = ["account_id", "event_at", "known_at", "bytes", "recipient"]
    with client.as_current():
        shown = {sources: Explorer(client, row).events() for sources, row in rows.items()}
        read = {sources: frame.compute().reset_index() for sources, frame in shown.items()}
        large = Explorer(client, rows["live"]).events(filters=[("bytes", ">", 90_000)])["bytes"].compute()
        assert shown["live"].npartitions == 4, "a partition is a file of the freeze"
        assert shown["live"]["bytes"].sum().compute() == read["files"]["bytes"].sum()
    whole = {sources: frame[order].sort_values(order, ignore_index=True) for sources, frame in read.items()}
    pd.testing.assert_frame_equal(whole["live"], whole["files"], check_dtype=False)
    assert len(large) == (whole["files"]["bytes"] > 90_000).sum() > 0
    assert shown["live"].dtypes["event_at"] == shown["files"].dtypes["event_at"]
