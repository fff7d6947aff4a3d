"""A file is there whole under its final name, or not at all; equal tables are equal files; nothing is written over."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore import settling
from batchscore.drafts import Drafts, write_parquet
from batchscore.errors import AttemptFailed, Interrupted, PartitionError
from batchscore.files import file_sha256, parquet_bytes, publish, stream_of, verified, write_named_by_digest
from batchscore.settling import Settling

SCHEMA = pa.schema([("account_id", pa.uint64()), ("name", pa.string()), ("value", pa.float32())])
ROWS = pa.table({"account_id": pa.array(range(200), pa.uint64()), "name": [f"n{n % 7}" if n % 5 else None for n in range(200)],
                 "value": pa.array(np.arange(200), pa.float32())}, schema=SCHEMA)  # fmt: skip


def write(tables: list[pa.Table], store: Path, **more: Any) -> Any:
    return write_parquet(tables, more.pop("schema", SCHEMA), store, "score/abc", "scores", **more)


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 200), max_size=6), group_rows=st.sampled_from([7, 64, 200, 1000]))
def test_equal_tables_give_equal_bytes_however_they_come_cut(
    cuts: list[int], group_rows: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = tmp_path_factory.mktemp("store")
    edges = [0, *sorted(cuts), 200]
    pieces = [ROWS.slice(low, high - low) for low, high in pairwise(edges)]
    whole, cut = write([ROWS], store, group_rows=group_rows), write(pieces, store, group_rows=group_rows)
    assert (cut.sha256, cut.n_rows, cut.n_bytes) == (whole.sha256, 200, whole.n_bytes)
    assert pq.read_table(store / cut.path).equals(ROWS)


@pytest.mark.parametrize(
    "form", ["chunked", "sliced", "sliced bool", "validity buffer without nulls", "metadata", "hidden values under nulls"]
)
def test_equal_tables_give_equal_bytes_however_arrow_holds_them(form: str, tmp_path: Path) -> None:
    schema = pa.schema(
        [("account_id", pa.uint64()), ("flag", pa.bool_()), ("name", pa.string()), ("list", pa.list_(pa.uint64()))]
    )
    n = 100
    columns: dict[str, list[Any]] = {
        "account_id": list(range(n)),
        "flag": [i % 3 == 0 for i in range(n)],
        "name": [str(i) if i % 4 else None for i in range(n)],
        "list": [[i] * (i % 4) for i in range(n)],
    }
    plain = pa.table(columns, schema=schema)
    padded = pa.concat_tables([plain.slice(0, 3), plain]).combine_chunks().slice(3)
    nameless = pa.array([None if not i % 4 else str(i) for i in range(n)], pa.string())
    hidden = pa.StringArray.from_buffers(n, *_spelled_out(n), null_count=-1)
    other = {
        "chunked": pa.concat_tables([plain.slice(0, 13), plain.slice(13)]),
        "sliced": padded,
        "sliced bool": padded.slice(0),
        "validity buffer without nulls": plain.set_column(1, "flag", pa.array([*columns["flag"], None]).slice(0, n)),
        "metadata": plain.replace_schema_metadata({"pandas": "{}"}),
        "hidden values under nulls": plain.set_column(2, "name", hidden),
    }[form]
    assert other.column("name").combine_chunks().equals(nameless)
    assert write([other], tmp_path, schema=schema).sha256 == write([plain], tmp_path, schema=schema).sha256


def _spelled_out(n: int) -> list[pa.Buffer]:
    """The buffers of "0", "1", … with every fourth null, its text still there."""
    spelled = pa.array([str(i) for i in range(n)], pa.string()).buffers()
    mask = pa.array([None if not i % 4 else 1 for i in range(n)], pa.int8()).buffers()[0]
    return [spelled[1], spelled[2], mask]


def test_no_tables_and_empty_tables_give_one_readable_file_without_rows(tmp_path: Path) -> None:
    outputs = [write([], tmp_path), write([SCHEMA.empty_table()], tmp_path), write([SCHEMA.empty_table()] * 3, tmp_path)]
    assert len({output.sha256 for output in outputs}) == 1
    assert pq.read_table(tmp_path / outputs[0].path).schema.equals(SCHEMA)


def test_every_page_carries_a_checksum_that_finds_a_flip(tmp_path: Path) -> None:
    output = write([ROWS], tmp_path)
    path = tmp_path / output.path
    with pq.ParquetFile(path) as file:
        at = file.metadata.row_group(0).column(2).data_page_offset + 200
    payload = bytearray(path.read_bytes())
    payload[at] ^= 4
    path.write_bytes(payload)
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(path, page_checksum_verification=True)


def test_two_writes_never_share_a_name_and_publish_never_overwrites(tmp_path: Path) -> None:
    assert write([ROWS], tmp_path).path != write([ROWS], tmp_path).path
    folder = tmp_path / "deep" / "folder"
    folder.mkdir(parents=True)
    (folder / "taken").write_bytes(b"first")
    (folder / ".new").write_bytes(b"second")
    with pytest.raises(FileExistsError):
        publish(folder / ".new", folder / "taken")
    assert (folder / "taken").read_bytes() == b"first"


def fails_at(monkeypatch: pytest.MonkeyPatch, what: str, n: int, code: int) -> None:
    """Let the ``n``-th call (from 0) of ``os.<what>`` fail with the error ``code``."""
    real, calls = getattr(os, what), iter(range(10**6))

    def broken(*arguments: Any, **more: Any) -> Any:
        if next(calls) == n:
            raise OSError(code, os.strerror(code))
        return real(*arguments, **more)

    monkeypatch.setattr(os, what, broken)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize(("what", "n"), [*(("fsync", n) for n in range(4)), ("link", 0)])
def test_a_failing_disk_is_write_failed_and_leaves_nothing_under_a_final_name(
    what: str, n: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_at(monkeypatch, what, n, code)
    with pytest.raises(AttemptFailed) as caught:
        write([ROWS], tmp_path)
    assert caught.value.reason == "write_failed"
    assert os.strerror(code) in str(caught.value)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("n", range(6))
def test_a_disk_that_fills_up_at_any_write_is_write_failed_and_leaves_nothing(
    n: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pq.ParquetWriter.write_table
    calls = iter(range(10**6))

    def broken(self: Any, *arguments: Any, **more: Any) -> None:
        if next(calls) == n:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, *arguments, **more)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", broken)
    with pytest.raises(AttemptFailed) as caught:
        write([ROWS], tmp_path, group_rows=33)
    assert caught.value.reason == "write_failed"
    assert left_in(tmp_path) == []


def full(device: Path, mode: str) -> pa.PythonFile:
    return pa.PythonFile(device.open(mode), mode)  # Arrow closes it


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has /dev/full")
def test_a_disk_that_is_really_full_is_write_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(path: str, mode: str) -> pa.PythonFile:
        Path(path).touch()
        return full(Path("/dev/full"), mode)

    monkeypatch.setattr(pa, "OSFile", opened)
    with pytest.raises(AttemptFailed) as caught:
        write([ROWS], tmp_path)
    assert (caught.value.reason, left_in(tmp_path)) == ("write_failed", [])


def test_an_error_of_the_tables_source_is_not_taken_for_the_disks(tmp_path: Path) -> None:
    def tables() -> Any:
        yield ROWS
        raise PartitionError("input_corrupt", "a page does not decode")

    with pytest.raises(PartitionError):
        write_parquet(tables(), SCHEMA, tmp_path, "score/abc", "scores")
    assert left_in(tmp_path) == []


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are on their way to the disk from their first row group on."""
    monkeypatch.setattr(settling, "STEP_BYTES", 64)


@pytest.mark.usefixtures("small_steps")
def test_a_growing_file_is_on_its_way_to_the_disk_before_its_end_and_read_back_only_when_it_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int, int]] = []
    begun, sync, read = settling.begin_writing, os.fsync, os.preadv

    def begin(file: int, first: int, end: int) -> None:
        assert end <= os.fstat(file).st_size, "it is written already"
        told.append(("begun", first, end))
        begun(file, first, end)

    def synced(file: int) -> None:
        sync(file)
        told.append(("synced", 0, os.fstat(file).st_size))

    def look(file: int, into: Any, at: int) -> int:
        n_read = read(file, into, at)
        told.append(("read", at, at + n_read))
        return n_read

    monkeypatch.setattr(settling, "begin_writing", begin)
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "preadv", look)
    output = write([ROWS], tmp_path, group_rows=33)
    parts = [(first, end) for what, first, end in told if what == "begun"]
    assert len(parts) > 1
    assert [first for first, _ in parts] == [0, *(end for _, end in parts[:-1])]
    last = max(place for place, (what, *_) in enumerate(told) if what == "begun")
    assert told[last + 1] == ("synced", 0, output.n_bytes), "the whole file is synced before anything else is done with it"
    assert told[-1] == ("read", 0, output.n_bytes)
    assert output.sha256 == file_sha256(tmp_path / output.path)


@pytest.mark.usefixtures("small_steps")
def test_bytes_reach_the_file_where_the_system_begins_nothing_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "_sync_file_range", None)
    output = write([ROWS], tmp_path, group_rows=33)
    assert pq.read_table(tmp_path / output.path).equals(ROWS)


def test_a_file_that_cannot_be_read_back_is_write_failed_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_at(monkeypatch, "preadv", 0, errno.EIO)
    with pytest.raises(AttemptFailed) as caught:
        write([ROWS], tmp_path)
    assert (caught.value.reason, left_in(tmp_path)) == ("write_failed", [])


@pytest.mark.parametrize("spoil", [lambda path: os.truncate(path, 50), lambda path: path.replace(path.with_suffix(".other"))])
def test_a_file_that_is_not_what_was_written_is_write_failed(
    spoil: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Settling.sync

    def spoilt(self: Settling) -> None:
        real(self)
        (temporary,) = (path for path in tmp_path.rglob("*.tmp"))
        spoil(temporary)

    monkeypatch.setattr(Settling, "sync", spoilt)
    with pytest.raises(AttemptFailed, match="write_failed"):
        write([ROWS], tmp_path)


@pytest.mark.usefixtures("small_steps")
def test_a_draft_that_is_given_up_leaves_no_open_file_and_no_name(tmp_path: Path) -> None:
    def n_open() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = n_open()
    with Drafts(tmp_path, "score/abc") as drafts:
        drafts.begin_parquet(SCHEMA, "scores", group_rows=33).write(ROWS)
        drafts.write_parquet([ROWS], SCHEMA, "rejects")
        drafts.write_arrow(ROWS, "groups")
        assert n_open() > before
    assert (n_open(), left_in(tmp_path)) == (before, [])


def test_drafts_appear_together_when_they_are_published_and_hold_no_rows_until_then(tmp_path: Path) -> None:
    with Drafts(tmp_path, "score/abc") as drafts:
        n_held = pa.total_allocated_bytes()
        drafts.write_parquet((pa.table(ROWS.to_pydict(), SCHEMA) for _ in range(20)), SCHEMA, "scores", group_rows=999)
        drafts.write_arrow(ROWS, "groups")
        assert pa.total_allocated_bytes() <= n_held + 4_096, "ended files hold what was written"
        assert [name for name in left_in(tmp_path) if not name.endswith(".tmp")] == []
        outputs = drafts.publish()
    assert [(output.role, output.n_rows) for output in outputs] == [("scores", 4_000), ("groups", 200)]
    assert sorted(Path(output.path).name for output in outputs) == left_in(tmp_path)
    assert [file_sha256(tmp_path / output.path) for output in outputs] == [output.sha256 for output in outputs]


def test_where_not_all_drafts_can_be_published_none_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails_at(monkeypatch, "link", 1, errno.EIO)
    with Drafts(tmp_path, "score/abc") as drafts:
        for role in ("scores", "rejects", "reasons"):
            drafts.write_parquet([ROWS], SCHEMA, role)
        with pytest.raises(AttemptFailed, match="write_failed"):
            drafts.publish()
        assert [name for name in left_in(tmp_path) if not name.endswith(".tmp")] == []
    assert left_in(tmp_path) == []


def test_a_failed_write_leaves_what_was_written_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write([ROWS], tmp_path)
    fails_at(monkeypatch, "fsync", 1, errno.EIO)
    with pytest.raises(AttemptFailed):
        write([ROWS], tmp_path)
    assert left_in(tmp_path) == [Path(first.path).name]
    assert file_sha256(tmp_path / first.path) == first.sha256


def test_bytes_named_by_their_digest_are_one_file_and_a_damaged_one_is_not_trusted(tmp_path: Path) -> None:
    one, two = write_named_by_digest(b"held", tmp_path / "x", "json"), write_named_by_digest(b"held", tmp_path / "x", "json")
    assert one == two
    assert left_in(tmp_path) == [f"{one.sha256}.json"]
    Path(one.path).write_bytes(b"hel")
    again = write_named_by_digest(b"held", tmp_path / "x", "json")
    assert Path(again.path).read_bytes() == b"held"
    assert left_in(tmp_path) == [f"{one.sha256}.json"]


@pytest.mark.parametrize(("what", "n"), [*(("fsync", n) for n in range(3)), ("link", 0)])
def test_a_failing_disk_fails_a_named_write_by_its_reason(
    what: str, n: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_at(monkeypatch, what, n, errno.ENOSPC)
    with pytest.raises(Interrupted) as caught:
        write_named_by_digest(b"held", tmp_path / "x", "json")
    assert (caught.value.reason, left_in(tmp_path)) == ("write_failed", [])


def test_a_small_tables_bytes_depend_on_nothing_but_its_content() -> None:
    chunked = pa.concat_tables([ROWS.slice(0, 50), ROWS.slice(50)])
    assert parquet_bytes(chunked) == parquet_bytes(ROWS)


def test_what_arrow_reads_in_memory_is_no_memory_of_pythons() -> None:
    payload = parquet_bytes(pa.table({"a": [1, 2, 3]}))
    held_before = sys.getrefcount(payload)
    stream = stream_of(payload)
    assert sys.getrefcount(payload) == held_before, "a thread of Arrow's could be the last to let go of it"
    assert stream.read() == payload
    stream.seek(0)
    assert pq.read_table(stream).column("a").to_pylist() == [1, 2, 3]


def test_verified_finds_a_changed_and_a_missing_file_and_names_no_folder(tmp_path: Path) -> None:
    path = tmp_path / "held.bin"
    path.write_bytes(b"one")
    good = file_sha256(path)
    with pytest.raises(PartitionError) as changed:
        verified(str(path), "0" * 64)
    with pytest.raises(PartitionError) as gone:
        verified(str(tmp_path / "absent.bin"), good)
    assert (changed.value.reason, gone.value.reason) == ("input_digest_mismatch", "file_missing")
    assert str(tmp_path) not in f"{changed.value}{gone.value}"
    assert verified(str(path), good) == path


def test_verified_looks_again_when_a_file_it_has_verified_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "held.bin"
    path.write_bytes(b"one")
    good = file_sha256(path)
    verified(str(path), good)
    path.write_bytes(b"another")
    with pytest.raises(PartitionError, match="not those"):
        verified(str(path), good)
