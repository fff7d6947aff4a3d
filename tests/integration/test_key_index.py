"""A key index finds exactly the rows of a key range, and cuts all ids into ranges of about one size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.drafts import write_parquet
from batchscore.errors import PartitionError
from batchscore.key_index import KeyIndex, open_index
from batchscore.keys import ID_TYPES, IdKind, sort_by_key
from batchscore.plan import KeyRange

EDGES = [0, 1, 2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1]
WORDS = ["", "0", "00", " x", "x ", "e\u0301", "\u00e9", "\U0001f600", "\uffff", "\0", "long " * 2000]
integers = st.lists(st.one_of(st.sampled_from(EDGES), st.integers(0, 2**64 - 1), st.integers(0, 30)), max_size=60)
strings = st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=6)), max_size=60)


def order(key: Any) -> Any:
    return key.encode() if isinstance(key, str) else key


def index_of(store: Path, kind: IdKind, files: list[list[Any]], *, group_rows: int = 7) -> tuple[KeyIndex, pa.Table]:
    """An index over one file for each list of ids (each file sorted), and all of the rows."""
    tables, outputs = [], []
    for number, ids in enumerate(files):
        table = sort_by_key(pa.table({"account_id": pa.array(ids, ID_TYPES[kind]), "from": pa.repeat(number, len(ids))}))
        tables.append(table)
        outputs.append(write_parquet([table], table.schema, store, "freeze/x", "snapshot", group_rows=group_rows))
    return KeyIndex.build(store, kind, outputs), pa.concat_tables(tables)


def inside(ids: list[Any], keys: KeyRange) -> list[bool]:
    return [
        (keys.low is None or order(keys.low) <= order(key)) and (keys.high is None or order(key) < order(keys.high))
        for key in ids
    ]


kinds: Any = st.one_of(st.tuples(st.just("integer"), st.lists(integers, min_size=1, max_size=4)),
                       st.tuples(st.just("string"), st.lists(strings, min_size=1, max_size=4)))  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(world=kinds, data=st.data())
def test_reading_a_range_equals_a_filter_of_everything(
    world: tuple[IdKind, list[list[Any]]], data: st.DataObject, tmp_path_factory: Any
) -> None:
    kind, files = world
    index, everything = index_of(tmp_path_factory.mktemp("store"), kind, files)
    bound = st.none() | st.sampled_from([key for ids in files for key in ids] or [None])
    keys = KeyRange(low=data.draw(bound), high=data.draw(bound))
    wanted = everything.filter(pa.array(inside(everything["account_id"].to_pylist(), keys), pa.bool_()))
    both = [("account_id", "ascending"), ("from", "ascending")]
    found = index.read(keys)
    assert found["account_id"].equals(wanted.sort_by(both)["account_id"])
    assert found.sort_by(both).combine_chunks().equals(wanted.sort_by(both).combine_chunks())
    among = everything["account_id"].unique()[::2]
    assert (
        index.read(keys, among=among)
        .sort_by(both)
        .equals(wanted.filter(pc.is_in(wanted["account_id"], value_set=among)).sort_by(both))
    )
    assert index.read(keys, columns=["account_id"]).column_names == ["account_id"]


@settings(max_examples=25, deadline=None)
@given(world=kinds, target=st.integers(1, 70))
def test_a_cut_covers_every_id_exactly_once_and_estimates_all_rows(
    world: tuple[IdKind, list[list[Any]]], target: int, tmp_path_factory: Any
) -> None:
    kind, files = world
    index, everything = index_of(tmp_path_factory.mktemp("store"), kind, files)
    cut = index.cut(target)
    lows, highs = [keys.low for keys, _ in cut], [keys.high for keys, _ in cut]
    assert (lows[0], highs[-1], lows[1:]) == (None, None, highs[:-1])
    assert [order(low) for low in lows[1:]] == sorted({order(low) for low in lows[1:]})
    assert sum(n for _, n in cut) == index.n_rows == len(everything)
    assert sum(len(index.read(keys)) for keys, _ in cut) == len(everything)
    for key in EDGES if kind == "integer" else WORDS:
        assert sum(inside([key], keys)[0] for keys, _ in cut) == 1


def worlds() -> dict[str, list[Any]]:
    rng = np.random.default_rng(7)
    dense = np.arange(60_000)
    mixed = rng.permutation(60_000)
    return {
        "one sorted file": [dense],
        "sixty shuffled files": np.array_split(mixed, 60),
        "files of ten rows": np.array_split(mixed, 6000)[:3000],
        "files of a low and a high key": [np.array([key, key + 10**12]) for key in range(1500)],
        "a large file and a thousand of one row": [dense, *(np.array([10**9 + key]) for key in range(1000))],
        "most keys at one end": [np.concatenate([dense, 2**40 + dense[:100] * 2**20])],
    }


@pytest.mark.parametrize("name", list(worlds()))
@pytest.mark.parametrize("target", [64, 1000, 20_000])
def test_a_cut_is_balanced_within_a_factor_of_two(
    name: str, target: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = worlds()[name]
    ids = np.sort(np.concatenate(files)).astype(np.uint64)
    schema = pa.schema([("account_id", pa.uint64())])
    entries = pa.Table.from_pylist([{"n_rows": len(ids)}], schema=pa.schema([("n_rows", pa.int64())]))
    index = KeyIndex(tmp_path, "integer", entries, schema)
    monkeypatch.setattr(KeyIndex, "_key_columns", lambda _self: (pa.array(np.sort(part).astype(np.uint64)) for part in files))
    cut = index.cut(target)
    bounds = np.array([keys.low for keys, _ in cut][1:], np.uint64)
    sizes = np.diff([0, *np.searchsorted(ids, bounds), len(ids)])
    assert len(cut) == -(-len(ids) // target)
    assert sizes.max() <= 2 * target
    assert len(cut) == 1 or sizes.max() <= 2 * sizes.min()


def test_an_empty_index_is_one_open_range_and_reads_as_an_empty_table(tmp_path: Path) -> None:
    index, _ = index_of(tmp_path, "string", [[], []])
    assert index.cut(100) == ((KeyRange(), 0),)
    assert index.read(KeyRange()).schema == pa.schema([("account_id", pa.string()), ("from", pa.int64())])
    assert not index.overlaps


def test_ids_at_the_edges_of_64_bits_keep_their_bounds(tmp_path: Path) -> None:
    index, _ = index_of(tmp_path, "integer", [EDGES], group_rows=1)
    assert index.entries["low"].to_pylist() == EDGES == index.entries["high"].to_pylist()
    for key in EDGES:
        assert index.read(KeyRange(low=key, high=key + 1 if key < 2**64 - 1 else None))["account_id"].to_pylist() == [key]


def test_ids_too_long_for_a_footers_statistics_are_indexed_by_their_values(tmp_path: Path) -> None:
    ids = ["a", "m" * 100_000, "z" * 100_000]
    index, _ = index_of(tmp_path, "string", [ids], group_rows=2)
    assert index.entries["high"].to_pylist() == ids[1:]
    assert index.read(KeyRange(low="b"))["account_id"].to_pylist() == ids[1:]


def test_a_read_opens_only_row_groups_that_may_hold_the_range(tmp_path: Path) -> None:
    index, _ = index_of(tmp_path, "integer", [list(range(100)), list(range(100, 200))], group_rows=10)
    assert list(index.files(KeyRange(low=10, high=20)).values()) == [[1]]
    assert sorted(index.files(KeyRange(low=95, high=105)).values()) == [[0], [9]]
    assert sum(map(len, index.files(KeyRange()).values())) == 20


def test_overlaps_sees_one_key_in_two_files_and_not_neighbours(tmp_path: Path) -> None:
    assert index_of(tmp_path, "integer", [[1, 5, 9], [5]])[0].overlaps
    assert index_of(tmp_path, "integer", [[1, 5], [5, 6]])[0].overlaps
    assert not index_of(tmp_path, "integer", [[1, 5], [6, 7], [2**63]])[0].overlaps
    assert index_of(tmp_path, "string", [["a", "z"], ["\u00e9"], ["\U0001f600", "y"]])[0].overlaps


def test_a_column_that_is_null_in_every_file_is_one_of_missing_numbers(tmp_path: Path) -> None:
    table = pa.table({"account_id": pa.array([1], pa.uint64()), "plan": pa.nulls(1)})
    outputs = [write_parquet([table], table.schema, tmp_path, "freeze/x", "snapshot")]
    assert KeyIndex.build(tmp_path, "integer", outputs).read(KeyRange())["plan"].type == pa.float64()


def test_columns_that_drift_without_loss_are_brought_together(tmp_path: Path) -> None:
    outputs = []
    for ids, kind in (([1, 3], pa.int32()), ([2, 4], pa.int64()), ([5], pa.null())):
        table = pa.table({"account_id": pa.array(ids, pa.uint64()), "plan": pa.array(ids if kind != pa.null() else [None], kind)})
        outputs.append(write_parquet([table], table.schema, tmp_path, "freeze/x", "snapshot"))
    table = KeyIndex.build(tmp_path, "integer", outputs).read(KeyRange())
    assert table["plan"].to_pylist() == [1, 2, 3, 4, None]
    assert table.schema.field("plan").type == pa.int64()


def test_a_saved_index_opens_as_it_was_and_twice_is_one_file(tmp_path: Path) -> None:
    index, everything = index_of(tmp_path, "integer", [EDGES, [7, 2**60]])
    reference = index.save(tmp_path / "indexes")
    assert index.save(tmp_path / "indexes") == reference
    opened = open_index(str(tmp_path), "integer", reference)
    assert opened.entries.equals(index.entries)
    assert opened.schema.equals(index.schema)
    assert opened.read(KeyRange()).equals(index.read(KeyRange()))
    assert len(opened.read(KeyRange())) == len(everything)


def test_a_changed_file_is_found_before_a_row_of_it_is_read(tmp_path: Path) -> None:
    index, _ = index_of(tmp_path, "integer", [EDGES])
    path = tmp_path / index.entries["path"][0].as_py()
    payload = bytearray(path.read_bytes())
    payload[40] ^= 1
    path.write_bytes(payload)
    with pytest.raises(PartitionError) as caught:
        index.read(KeyRange())
    assert caught.value.reason == "input_digest_mismatch"


def test_a_file_that_is_gone_is_told_when_ranges_are_cut(tmp_path: Path) -> None:
    index, _ = index_of(tmp_path, "integer", [[1, 2, 3, 4]])
    next(tmp_path.rglob("*.parquet")).unlink()
    with pytest.raises(PartitionError) as caught:
        index.cut(2)
    assert caught.value.reason == "input_corrupt"


def test_rows_of_a_key_keep_the_order_of_their_files(tmp_path: Path) -> None:
    index, _ = index_of(tmp_path, "integer", [[3, 1], [1, 2], [3]])
    found = index.read(KeyRange()).sort_by([("account_id", "ascending"), ("from", "ascending")])
    assert found.select(["account_id", "from"]).to_pylist() == [
        {"account_id": 1, "from": 0}, {"account_id": 1, "from": 1}, {"account_id": 2, "from": 1}, {"account_id": 3, "from": 0},
        {"account_id": 3, "from": 2}]  # fmt: skip
    assert pc.min(found["account_id"]).as_py() == 1
