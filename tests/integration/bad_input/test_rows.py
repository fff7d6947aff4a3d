"""What rows and values get: ids, times, nulls, infinities, text that is none. Rejected, set aside or exact, not guessed."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from batchscore.attempt import attempt
from batchscore.errors import Refused
from batchscore.executors.inline import InlineExecutor
from batchscore.pipeline import run
from batchscore.plan import Stage
from batchscore.planner import make_plan
from batchscore.store import open_reader, open_store
from tests.integration.bad_input.spoiling import N, cast, change, change_all, counts, digest, first, go, put, refused, stopped
from tests.small_world import SmallWorld, make_small_world


def test_null_and_negative_ids_are_rejected_and_the_others_scored(world: SmallWorld) -> None:
    change(first(world), put("id", lambda ids: pa.array([None, -5, *ids.to_pylist()[2:]], pa.int64())))
    change(first(world, "mails"), put("id", lambda ids: pa.array([None, None, -1, *ids.to_pylist()[3:]], pa.int64())))
    found = counts(world, go(make_plan(world.spec())))
    assert (found["freeze rejected null_id"], found["freeze rejected id_range"], found["freeze rows"]) == (1, 1, N)
    assert (found["rollup rejected null_id"], found["rollup rejected id_range"]) == (2, 1)
    assert found["score rows"] == N - 2


def test_an_id_too_long_for_a_review_database_is_rejected_and_its_run_releases(tmp_path: Path) -> None:
    world = make_small_world(tmp_path / "world", n_accounts=N, kind="string")
    fits, too_long = "ä" * 127, "ä" * 128
    change(first(world), put("id", lambda ids: pa.array([fits, too_long, *ids.to_pylist()[2:]], pa.string())))
    plan = make_plan(world.spec(policy="{queue: abuse, budget: 100}"))
    row = run(plan, executor=InlineExecutor(attempt), store=open_store(world.store, "string"), observer=lambda _event: None)
    assert row.state == "finished"
    found = counts(world, row)
    assert (found["freeze rejected id_length"], found["freeze rows"]) == (1, N)
    flagged = {flag.flag.account_id for flag in open_reader(world.store).queue(None, limit=1_000)}
    assert fits in flagged
    assert len(flagged) == N - 1


@pytest.mark.parametrize("where", ["in one file", "in two files of one group", "in two groups"])
def test_an_account_that_stands_twice_is_refused_as_duplicate_id(
    where: str, world: SmallWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "in two groups":
        monkeypatch.setattr("batchscore.sources.works.GROUP_FILES", 1)
    paths = sorted((world.folder / "accounts").glob("*.parquet"))
    source = paths[0] if where == "in one file" else paths[1]
    row = pq.ParquetFile(source).read().slice(5, 1)
    change(paths[0], lambda table: pa.concat_tables([table, row]))
    message = stopped(world, make_plan(world.spec()), "duplicate_id", Refused)
    assert "keep one row per account" in message


@pytest.mark.parametrize("table", ["accounts", "mails"])
def test_input_without_a_single_row_is_fine(table: str, world: SmallWorld) -> None:
    change_all(world, table, lambda held: held.slice(0, 0))
    row = go(make_plan(world.spec()))
    assert row.state == "finished"
    assert counts(world, row).get("score rows", 0) == (0 if table == "accounts" else N)


def test_nan_and_null_are_one_thing_missing(world: SmallWorld) -> None:
    digests = []
    for missing in (None, float("nan")):
        change_all(world, "accounts", put("plan", lambda plan, missing=missing: pa.array([missing] * len(plan), pa.float64())))
        digests.append(digest(world, go(make_plan(world.spec()))))
        shutil.rmtree(world.store)
    change_all(world, "accounts", put("plan", lambda plan: pa.nulls(len(plan))))
    digests.append(digest(world, go(make_plan(world.spec()))))
    assert len(set(digests)) == 1


def test_a_column_of_nothing_but_nulls_in_one_file_is_missing_there(world: SmallWorld) -> None:
    change(first(world), put("plan", lambda plan: pa.nulls(len(plan))))
    change(first(world, "mails"), put("bytes", lambda column: pa.nulls(len(column))))
    typeless = digest(world, go(make_plan(world.spec())))
    shutil.rmtree(world.store)
    change(first(world), put("plan", lambda plan: pa.nulls(len(plan), pa.int64())))
    change(first(world, "mails"), put("bytes", lambda column: pa.nulls(len(column), pa.int64())))
    assert digest(world, go(make_plan(world.spec()))) == typeless


def test_infinite_and_too_large_features_are_rejected_by_the_run(world: SmallWorld) -> None:
    change_all(world, "accounts", cast("plan", pa.float64()))
    bad = [float("inf"), -float("inf"), 1e39, -1e39]
    change(first(world), put("plan", lambda plan: pa.array(bad + plan.to_pylist()[4:], pa.float64())))
    ids = pq.ParquetFile(first(world)).read(columns=["id"])["id"].to_pylist()[:4]
    created = pq.ParquetFile(first(world)).read()["created_at"].to_pylist()[:4]
    row = go(make_plan(world.spec()))
    as_ofs = (datetime(2026, 1, 8, tzinfo=UTC), datetime(2026, 1, 15, tzinfo=UTC))
    assert len(ids) == 4
    assert counts(world, row)["score rejected nonfinite_feature"] == sum(moment < as_of for moment in created for as_of in as_ofs)


def test_invalid_utf8_is_set_aside_and_not_told(world: SmallWorld) -> None:
    text = pa.array([b"canary \xff\xfe"] * 200, pa.binary())
    spoilt = pa.Array.from_buffers(pa.string(), 200, text.buffers())
    change(first(world, "mails"), put("recipient", lambda _: spoilt))
    assert "canary" not in stopped(world, make_plan(world.spec()), "invalid_utf8")


def test_ids_at_the_edges_of_64_bits_come_out_as_they_went_in(world: SmallWorld) -> None:
    edges = [0, 2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1]
    change_all(world, "accounts", lambda table: table.slice(0, 0))
    table = pq.ParquetFile(first(world)).schema_arrow
    held = pa.table({"id": edges, "created_at": pa.array([datetime(2020, 1, 1, tzinfo=UTC)] * 5), "plan": [1] * 5}).cast(table)
    pq.write_table(held, first(world))
    row = go(make_plan(world.spec(policy="{queue: abuse, threshold: 0.0}")))
    outputs = [output for receipt in open_reader(world.store).receipts(row.run_id, Stage.SCORE) for output in receipt.outputs]
    scores = pa.concat_tables([pq.read_table(world.store / output.path) for output in outputs if output.role == "scores"])
    assert pc.unique(scores["account_id"]).sort().to_pylist() == edges
    assert sorted(row.flag.account_id for row in open_reader(world.store).queue(None, limit=100)) == edges


@pytest.mark.parametrize("spoil", ["beyond 9999 in s", "before year 1 in s"])
def test_a_time_beyond_what_a_date_can_be_is_rejected_not_guessed(spoil: str, world: SmallWorld) -> None:
    at = np.int64(400_000_000_000 if spoil.startswith("beyond") else -70_000_000_000)
    change(
        first(world, "mails"),
        put("at", lambda column: pa.array([int(at)] + [0] * (len(column) - 1)).cast(pa.timestamp("s", "UTC"))),
    )
    assert counts(world, go(make_plan(world.spec())))["rollup rejected timestamp_range"] == 1


def test_ids_that_no_queue_in_sqlite_can_hold_are_refused_before_anything_is_scored(world: SmallWorld) -> None:
    change_all(
        world, "accounts", lambda table: table.set_column(0, "id", pa.array(range(2**63, 2**63 + len(table)), pa.uint64()))
    )
    assert "MySQL" in refused(world, "id_too_large")
    assert make_plan(world.spec(release="none")).spec.release == "none"
