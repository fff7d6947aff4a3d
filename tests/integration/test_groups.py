"""Groups in files of their own: the same rows as in the snapshots, for any accounts; and a decision that is the same by both."""

from __future__ import annotations

from collections import OrderedDict
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore import decision
from batchscore.decision import decided_by, question_of, read_scores
from batchscore.drafts import Drafts, write_parquet
from batchscore.errors import PartitionError
from batchscore.key_index import KeyIndex
from batchscore.keys import ID_TYPES, IdKind, sort_by_key
from batchscore.layout import Definitions
from batchscore.operations.verify import verify_run
from batchscore.plan import KeyRange, Stage
from batchscore.ports import RunRow, StoreReader
from batchscore.receipt import Output
from batchscore.sources.groups import groups_beside, read_groups, write_groups
from batchscore.store import open_reader
from tests.commands import call
from tests.small_world import SmallWorld, make_small_world

POLICY = "{queue: abuse, budget: 30, reserve: 10, sample: 0.2, tiers: [{by: plan, budget: 9}], campaign: {by: network, cap: 2}}"
MOMENT = pa.timestamp("us", tz="UTC")


@pytest.mark.parametrize("kind", ["integer", "string"])
@pytest.mark.parametrize("is_history", [False, True])
def test_groups_looked_up_are_those_of_the_snapshots(tmp_path: Path, kind: IdKind, is_history: bool) -> None:
    rng = np.random.default_rng(7)
    times = {"valid_from": None, "valid_to": None} if is_history else {"created_at": None}
    everyone = rng.choice(10**9, 3_000, replace=False)
    snapshots: list[Output] = []
    files: list[Output] = []
    for part in np.split(everyone, [0, 1, 900, 2_000]):  # an empty file, one of one row, and two whose ranges overlap
        ids = np.repeat(np.sort(part), rng.integers(1, 4, len(part)) if is_history else 1)
        rows = {"account_id": pa.array(ids).cast(ID_TYPES[kind])}
        rows |= {name: pa.array(rng.integers(0, 99, len(ids)), MOMENT) for name in times}
        rows |= {
            "f": pa.array(rng.random(len(ids))),
            "_segment": pa.array([str(n % 3) if n % 4 else None for n in ids], pa.string()),
        }
        table = sort_by_key(pa.table(rows), *times)
        snapshots.append(write_parquet([table], table.schema, tmp_path, "freeze/a", "snapshot", group_rows=64))
        declared: Any = SimpleNamespace(times=times)  # all that it asks of a table of accounts
        with Drafts(tmp_path, "freeze/a") as drafts:
            write_groups(table, declared, ["_segment"], drafts)
            files += drafts.publish()
    index = KeyIndex.build(tmp_path, kind, snapshots)
    columns = ["account_id", *times, "_segment"]
    order = [(name, "ascending") for name in columns]
    for among in (everyone[:0], everyone[:1], everyone[::7], everyone, np.append(everyone[:40], [10**9 + 5])):
        asked = pa.array(among).cast(ID_TYPES[kind])
        found = read_groups(tmp_path, files, columns, asked).sort_by(order)
        assert found.equals(index.read(KeyRange(), columns=columns, among=asked).sort_by(order))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[SmallWorld, RunRow, StoreReader]:
    world = make_small_world(tmp_path_factory.mktemp("groups"), n_accounts=300)
    for path in (world.folder / "accounts").glob("*.parquet"):
        accounts = pq.read_table(path)
        networks = [f"net{number % 9}" if number % 3 else None for number in range(len(accounts))]
        networks[::5] = ["a campaign of a long name " * 20] * len(networks[::5])
        pq.write_table(accounts.append_column("network", pa.array(networks)), path)
    world.spec(segment="plan", groups="[network]", as_of="[2026-01-13, 2026-01-14, 2026-01-15]", policy=POLICY)
    assert call("run", world.spec_path, "--inline").code == 0
    reader = open_reader(world.store)
    return world, reader.runs()[0], reader


def asked_again(row: RunRow, reader: StoreReader) -> pa.Table:
    assert row.memory is not None
    asked = question_of(row.plan, Definitions.of(row.plan), reader, row.run_id, pq.read_table(row.memory.path))
    return decided_by(row.plan, asked)


def test_a_decision_is_the_same_by_files_of_groups_and_by_the_snapshots_of_an_earlier_release(
    ran: tuple[SmallWorld, RunRow, StoreReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, row, reader = ran
    assert groups_beside(reader.receipts(row.run_id, Stage.FREEZE)), "a freeze with groups leaves them"
    by_files = asked_again(row, reader)
    for most_whole in (0, 1 << 30):  # hashed as a stream, or held and read in one
        monkeypatch.setattr("batchscore.files._known", OrderedDict())
        monkeypatch.setattr("batchscore.files.MOST_WHOLE_BYTES", most_whole)
        assert asked_again(row, reader).equals(by_files)
    assert by_files["segment"].null_count < len(by_files)
    assert by_files["group"].null_count < len(by_files)
    without = [
        receipt.model_copy(update={"outputs": tuple(output for output in receipt.outputs if output.role != "groups")})
        for receipt in reader.receipts(row.run_id, Stage.FREEZE)
    ]
    assert groups_beside(without) is None
    monkeypatch.setattr(decision, "groups_beside", lambda _: groups_beside(without))
    assert asked_again(row, reader).equals(by_files)


def test_scores_of_a_date_are_those_a_filter_finds(ran: tuple[SmallWorld, RunRow, StoreReader], tmp_path: Path) -> None:
    dates = [datetime(2026, 1, day, tzinfo=UTC) for day in (13, 14, 15)]
    rows = {
        "as_of": pa.array([dates[0]] * 5 + [dates[1]] * 70 + [dates[2]] * 25, MOMENT),
        "account_id": pa.array(range(100), pa.uint64()),
        "margin": pa.array(np.linspace(-3, 3, 100), pa.float32()),
        "score": pa.array(np.linspace(0, 1, 100), pa.float32()),
    }
    table = pa.table(rows)
    files = [write_parquet([table], table.schema, tmp_path, "score/a", "scores", group_rows=size) for size in (7, 25, 100)]
    for as_of in (*dates, datetime(2026, 1, 12, tzinfo=UTC)):
        expected = table.filter(pa.compute.equal(table["as_of"], pa.scalar(as_of, MOMENT))).drop_columns(["as_of"])
        found = list(read_scores(tmp_path, files, as_of))
        assert len(found) == (3 if len(expected) else 0)
        assert all(one.equals(expected.select(one.column_names)) for one in found)
    started = read_scores(tmp_path, files * 9, dates[1])
    next(started)
    started.close()  # type: ignore[attr-defined]  # a generator, which its type does not say


def test_a_file_of_groups_that_was_changed_or_is_gone_is_refused_and_verify_names_it(
    ran: tuple[SmallWorld, RunRow, StoreReader],
) -> None:
    world, row, reader = ran
    assert verify_run(row, reader, world.store).true
    files: Any = groups_beside(reader.receipts(row.run_id, Stage.FREEZE))
    path = world.store / files[0].path
    held = path.read_bytes()
    try:
        path.write_bytes(held[:-9] + bytes([held[-9] ^ 1]) + held[-8:])
        with pytest.raises(PartitionError, match="input_digest_mismatch"):
            asked_again(row, reader)
        assert any(files[0].path in said for check in verify_run(row, reader, world.store).checks for said in check.untrue)
        path.unlink()
        with pytest.raises(PartitionError, match="file_missing"):
            asked_again(row, reader)
    finally:
        path.write_bytes(held)
