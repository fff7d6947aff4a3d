"""Parquet files as planned and as read: every row of an undamaged file, in bounded memory; damage found, never a guess.

Not found: a flip in a page *without* a checksum that decodes to other values (Parquet's default), and, in any file, a flip in
the footer that leaves it readable, since a plan holds a file's size, time of change and number of rows, but no digest.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore.errors import PartitionError, Refused
from batchscore.features.tables import AccountsTable
from batchscore.plan import InputFile
from batchscore.sources.parquet import read_batches
from batchscore.sources.parquet_columns import check_schema
from batchscore.sources.parquet_files import list_inputs

NAMES = ["id", "at", "plan", "name"]


def rows(n: int = 3000) -> pa.Table:
    rng = np.random.default_rng(3)
    return pa.table(
        {
            "id": pa.array(np.arange(n)),
            "at": pa.array(np.arange(n) * 10**9, pa.timestamp("us", "UTC")),
            "plan": rng.normal(size=n),
            "name": pa.array([f"n{number}" for number in rng.integers(0, 40, n)], pa.string()),
        }
    )


def read(file: InputFile) -> pa.Table:
    tables = [table.cast(rows(0).schema) for table in read_batches(file, NAMES)]
    return pa.concat_tables(tables)


@pytest.mark.parametrize(
    "settings", [{"compression": "zstd"}, {"compression": "none", "use_dictionary": False}, {"data_page_version": "2.0"}]
)
def test_fifty_flipped_bytes_in_checksummed_pages_are_never_a_silent_difference(
    settings: dict[str, object], tmp_path: Path
) -> None:
    path = tmp_path / "planned.parquet"
    table = rows()
    pq.write_table(table, path, write_page_checksum=True, data_page_size=4096, **settings)
    ((file,), _) = list_inputs(path)
    good, held = path.read_bytes(), path.stat()
    end = len(good) - 8 - int.from_bytes(good[-8:-4], "little")
    chance, n_found = random.Random(1), 0
    for _ in range(50):
        at, bits = chance.randrange(end), chance.randrange(1, 256)
        path.write_bytes(good[:at] + bytes([good[at] ^ bits]) + good[at + 1 :])
        os.utime(path, ns=(held.st_atime_ns, held.st_mtime_ns))
        try:
            assert read(file).equals(table)
        except PartitionError as error:
            assert error.reason in {"input_corrupt", "invalid_utf8"}
            n_found += 1
    assert n_found > 40


def test_every_flipped_bit_of_a_footer_is_found_or_changes_no_row_but_for_those_that_change_a_columns_type(
    tmp_path: Path,
) -> None:
    path = tmp_path / "planned.parquet"
    table = rows(200)
    pq.write_table(table, path, write_page_checksum=True, store_schema=False)
    ((file,), _) = list_inputs(path)
    good, held = path.read_bytes(), path.stat()
    footer = len(good) - 8 - int.from_bytes(good[-8:-4], "little")
    kinds = set()
    for at in range(footer, len(good), 5):
        path.write_bytes(good[:at] + bytes([good[at] ^ (1 << at % 8)]) + good[at + 1 :])
        os.utime(path, ns=(held.st_atime_ns, held.st_mtime_ns))
        try:
            found = pa.concat_tables(read_batches(file, NAMES))
        except PartitionError:
            continue
        if found.schema.types == [pa.int64(), pa.timestamp("us", "UTC"), pa.float64(), pa.dictionary(pa.int32(), pa.string())]:
            assert found.cast(table.schema).equals(table)
        else:
            kinds.add(str(found.schema.types))
    assert len(kinds) < 20  # a time in another unit, text as bytes: see above


def test_a_row_group_larger_than_the_buffers_is_read_in_bounded_memory(tmp_path: Path) -> None:
    n = 1_000_000
    table = pa.table({"id": np.arange(n), "at": pa.array(np.arange(n), pa.timestamp("us", "UTC")),
                      "plan": np.random.default_rng(1).normal(size=n), "name": pa.array(["x"] * n)})  # fmt: skip
    path = tmp_path / "one.parquet"
    pq.write_table(table, path, row_group_size=n, compression="none", use_dictionary=False)
    del table
    ((file,), _) = list_inputs(path)
    pool, default = pa.proxy_memory_pool(pa.default_memory_pool()), pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        assert sum(len(batch) for batch in read_batches(file, NAMES)) == n
    finally:
        pa.set_memory_pool(default)
    assert pool.max_memory() < path.stat().st_size / 2


def test_a_file_without_rows_gives_one_empty_batch_with_its_types(tmp_path: Path) -> None:
    pq.write_table(rows(0), tmp_path / "none.parquet")
    ((file,), _) = list_inputs(tmp_path)
    assert read(file).schema == rows(0).schema


def test_rows_come_in_order_whatever_the_row_groups(tmp_path: Path) -> None:
    pq.write_table(rows(), tmp_path / "a.parquet", row_group_size=77)
    ((file,), _) = list_inputs(tmp_path)
    assert read(file).equals(rows())


def test_a_file_that_lost_a_column_is_not_the_planned_one_though_size_and_time_are_the_same(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(rows(10), path)
    ((file,), _) = list_inputs(path)
    pq.write_table(rows(10).rename_columns(["id", "at", "plan", "nom"]), path)
    stat = path.stat()
    with pytest.raises(PartitionError) as caught:
        list(read_batches(file.model_copy(update={"n_bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}), NAMES))
    assert caught.value.reason == "input_digest_mismatch"


def test_files_come_in_path_order_and_what_is_passed_over_is_named(tmp_path: Path) -> None:
    for name in ("b/2.parquet", "a/10.parquet", "a/9.parquet", "c.parquet", "_x/1.parquet", "b/.hidden", "b/_SUCCESS"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pq.write_table(rows(1), tmp_path / name)
    files, passed_over = list_inputs(tmp_path)
    assert [file.path for file in files] == ["a/10.parquet", "a/9.parquet", "b/2.parquet", "c.parquet"]
    assert passed_over == ("_x", "b/.hidden", "b/_SUCCESS")


def test_a_link_to_a_hidden_file_inside_is_read(tmp_path: Path) -> None:
    (tmp_path / "_versions").mkdir()
    pq.write_table(rows(5), tmp_path / "_versions" / "3.parquet")
    (tmp_path / "current.parquet").symlink_to("_versions/3.parquet")
    files, _ = list_inputs(tmp_path)
    assert [(file.path, file.n_rows) for file in files] == [("current.parquet", 5)]


def test_a_link_that_leads_nowhere_and_a_pipe_are_refused_without_waiting(tmp_path: Path) -> None:
    pq.write_table(rows(1), tmp_path / "a.parquet")
    os.mkfifo(tmp_path / "b.parquet")
    with pytest.raises(Refused) as caught:
        list_inputs(tmp_path)
    assert "b.parquet: is no regular file" in str(caught.value)
    (tmp_path / "b.parquet").unlink()
    (tmp_path / "c.parquet").symlink_to("_gone.parquet")
    with pytest.raises(Refused) as caught:
        list_inputs(tmp_path)
    assert caught.value.reason == "file_missing"


def test_a_file_name_that_is_not_utf8_is_refused_not_a_crash(tmp_path: Path) -> None:
    pq.write_table(rows(1), tmp_path / "a.parquet")
    (tmp_path / "a.parquet").rename(tmp_path / os.fsdecode(b"\xff.parquet"))
    with pytest.raises(Refused, match="not UTF-8"):
        list_inputs(tmp_path)


@pytest.mark.parametrize(
    ("name", "one", "other", "n_problems"),
    [
        ("id", pa.int32(), pa.uint64(), 0),
        ("at", pa.timestamp("ns", "UTC"), pa.timestamp("s", "Europe/Berlin"), 0),
        ("at", pa.timestamp("us", "UTC"), pa.null(), 0),
        ("plan", pa.int32(), pa.int64(), 0),
        ("plan", pa.float32(), pa.float64(), 0),
        ("plan", pa.null(), pa.int8(), 0),
        ("plan", pa.int64(), pa.uint64(), 1),
        ("plan", pa.int8(), pa.float64(), 1),
        ("plan", pa.bool_(), pa.int8(), 1),
        ("plan", pa.dictionary(pa.int8(), pa.int64()), pa.int64(), 0),
    ],
)
def test_drift_between_files_is_fine_exactly_where_nothing_is_lost(
    name: str, one: pa.DataType, other: pa.DataType, n_problems: int, tmp_path: Path
) -> None:
    for number, kind in enumerate((one, other)):
        table = rows(0)
        at = table.column_names.index(name)
        empty = pa.array([], kind.value_type).dictionary_encode() if pa.types.is_dictionary(kind) else pa.array([], kind)
        pq.write_table(table.set_column(at, name, empty), tmp_path / f"{number}.parquet")
    files, _ = list_inputs(tmp_path)
    accounts = AccountsTable.model_validate({"table": "accounts", "key": "id", "created_at": "at", "immutable": ["plan"]})
    problems = check_schema(files, accounts, ["plan"], "integer")
    assert len(problems) == n_problems, problems
