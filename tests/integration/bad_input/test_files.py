"""What a broken, forged or replaced file gets, and what lies about beside files: refused, set aside, or the same bits.

Not found by a file's own checks: a flip in a page without a checksum (Parquet's default) that decodes to other values. A
file's footer is pinned by its SHA-256, and size and time of change catch every ordinary replacement.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore.errors import PartitionError
from batchscore.planner import make_plan
from batchscore.sources.parquet import read_batches
from batchscore.sources.parquet_files import list_inputs
from tests.integration.bad_input.spoiling import N, change, change_all, counts, digest, first, go, refused, stopped
from tests.small_world import SmallWorld, make_small_world

BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "has no bytes": lambda _: b"",
    "is cut short": lambda held: held[: len(held) // 2],
    "lost its last byte": lambda held: held[:-1],
    "is text": lambda _: b"id,plan\n1,2\n" * 50,
    "is a magic number and nothing more": lambda _: b"PAR1",
    "is zeros between two magic numbers": lambda held: b"PAR1" + b"\0" * len(held) + b"PAR1",
    "promises a footer longer than the file": lambda held: held[:-8] + b"\xff\xff\xff\x7fPAR1",
}


@pytest.mark.parametrize("how", list(BROKEN))
@pytest.mark.parametrize("table", ["accounts", "mails"])
def test_a_file_is_refused_as_not_parquet_when_it(how: str, table: str, world: SmallWorld) -> None:
    path = first(world, table)
    path.write_bytes(BROKEN[how](path.read_bytes()))
    assert path.relative_to(world.folder / table).as_posix() in refused(world, "not_parquet")


def test_every_broken_file_is_named_at_once(world: SmallWorld) -> None:
    for path in (world.folder / "accounts").glob("*.parquet"):
        path.write_bytes(b"")
    message = refused(world, "not_parquet")
    assert all(f"part-{number}.parquet" in message for number in range(3))


@pytest.mark.parametrize("how", ["has no bytes", "lost its last byte"])
def test_a_file_that_is_broken_after_the_plan_is_set_aside_when_it(how: str, world: SmallWorld) -> None:
    plan = make_plan(world.spec())
    path = first(world)
    path.write_bytes(BROKEN[how](path.read_bytes()))
    stopped(world, plan, "input_digest_mismatch")


def test_a_file_overwritten_after_the_plan_with_its_size_and_time_kept_differs_from_its_pinned_footer(world: SmallWorld) -> None:
    plan = make_plan(world.spec())
    overwrite(first(world), lambda held: b"\0" * len(held))
    stopped(world, plan, "input_digest_mismatch")


def test_pages_overwritten_after_the_plan_below_the_footer_that_was_pinned_are_input_corrupt(world: SmallWorld) -> None:
    plan = make_plan(world.spec())
    overwrite(first(world), lambda held: held[:4] + b"\0" * (footer_at(held) - 4) + held[footer_at(held) :])
    stopped(world, plan, "input_corrupt")


def footer_at(payload: bytes) -> int:
    return len(payload) - 8 - int.from_bytes(payload[-8:-4], "little")


def test_a_file_that_is_gone_after_the_plan_is_set_aside(world: SmallWorld) -> None:
    plan = make_plan(world.spec())
    first(world).unlink()
    stopped(world, plan, "file_missing")


def test_a_file_that_is_replaced_after_the_plan_is_set_aside_also_when_its_size_is_the_same(world: SmallWorld) -> None:
    plan = make_plan(world.spec())
    path = first(world, "mails")
    payload = path.read_bytes()
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert len(payload) == path.stat().st_size
    stopped(world, plan, "input_digest_mismatch")


def overwrite(path: Path, how: Callable[[bytes], bytes]) -> None:
    """Change bytes and keep size and time of change, as a failing disk does."""
    held = path.stat()
    payload = how(path.read_bytes())
    assert len(payload) == held.st_size
    path.write_bytes(payload)
    os.utime(path, ns=(held.st_atime_ns, held.st_mtime_ns))


def test_a_flip_in_a_checksummed_page_is_set_aside(world: SmallWorld) -> None:
    change_all(world, "accounts", lambda table: table, write_page_checksum=True)
    with pq.ParquetFile(first(world)) as file:
        column = file.metadata.row_group(0).column(0)
        at = (column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size - 3
    plan = make_plan(world.spec())
    overwrite(first(world), lambda held: held[:at] + bytes([held[at] ^ 1]) + held[at + 1 :])
    stopped(world, plan, "input_corrupt")


@pytest.mark.parametrize("plain_footer", [False, True])
def test_an_encrypted_file_is_refused_and_does_not_end_the_process(*, plain_footer: bool, world: SmallWorld) -> None:
    encryption = pytest.importorskip("pyarrow.parquet.encryption", reason="this pyarrow was built without encryption")

    class Keys(encryption.KmsClient):  # type: ignore[misc, name-defined]  # a module of C++, without types
        def wrap_key(self, key: bytes, _master: str) -> str:
            return key.hex()

        def unwrap_key(self, wrapped: str, _master: str) -> bytes:
            return bytes.fromhex(wrapped)

    factory = encryption.CryptoFactory(lambda _config: Keys())
    config = encryption.EncryptionConfiguration(footer_key="f", column_keys={"c": ["plan"]}, plaintext_footer=plain_footer)
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), config)
    change(first(world), lambda table: table, encryption_properties=properties)
    assert "is encrypted" in refused(world, "not_parquet")


def _always(payload: bytes) -> Callable[[bytes], bytes]:
    return lambda _held: payload


def test_every_bit_of_a_footer_is_pinned(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    pq.write_table(pa.table({"id": [1, 2, 3]}), path)
    (file,), _ = list_inputs(path)
    payload = path.read_bytes()
    footer = footer_at(payload)
    for at in range(footer, len(payload) - 4):
        flipped = payload[:at] + bytes([payload[at] ^ 1 << at % 8]) + payload[at + 1 :]
        overwrite(path, _always(flipped))
        with pytest.raises(PartitionError, match="input_digest_mismatch"):
            next(read_batches(file, ["id"]))
    overwrite(path, _always(payload))
    assert next(read_batches(file, ["id"])).num_rows == 3


def test_an_unknown_codec_is_refused_by_name(world: SmallWorld) -> None:
    change(first(world), lambda table: table, compression="brotli")
    path = first(world)
    with pq.ParquetFile(path) as file:
        assert file.metadata.row_group(0).column(0).compression == "BROTLI"
    # thrift, compact: field 4 of a column's metadata (codec), zigzag 4 (BROTLI) becomes 3 (LZO), which nobody reads any more
    payload = path.read_bytes()
    footer = footer_at(payload)
    at = payload.index(b"\x19\x18\x02id\x15\x08", footer) + 6
    path.write_bytes(payload[:at] + b"\x06" + payload[at + 1 :])
    assert "LZO" in refused(world, "parquet_codec")


def test_a_page_that_decodes_to_more_than_the_limit_is_set_aside(world: SmallWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some KB that would be 800 MB: one long word, named by every row. Its size is known before it is decoded."""
    word = pa.DictionaryArray.from_arrays(pa.array([0] * 8000, pa.int32()), pa.array(["canary" * 17_000]))
    change(
        first(world, "mails"), lambda table: pa.concat_tables([table] * 40).set_column(4, "recipient", word), compression="zstd"
    )
    assert first(world, "mails").stat().st_size < 200_000
    monkeypatch.setattr("batchscore.sources.parquet.MAX_PARTITION_BYTES", 100 << 20)
    plan = make_plan(world.spec())
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    held = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        message = stopped(world, plan, "memory_limit")
    finally:
        pa.set_memory_pool(held)
    assert "canary" not in message
    assert pool.max_memory() < 50 << 20


@pytest.mark.parametrize("by", [1, -1, 2**20])
def test_a_footer_that_lies_about_its_rows_is_set_aside(by: int, world: SmallWorld) -> None:
    plan = make_plan(world.spec())
    forged = [file.model_copy(update={"n_rows": file.n_rows + by}) for file in plan.inputs["accounts"][:1]]
    plan = plan.model_copy(update={"inputs": plan.inputs | {"accounts": (*forged, *plan.inputs["accounts"][1:])}})
    stopped(world, plan, "input_corrupt")


def test_a_run_has_the_same_bits_when_empty_and_hidden_files_lie_about(world: SmallWorld, undisturbed: str) -> None:
    folder = world.folder / "accounts"
    pq.write_table(pq.ParquetFile(first(world)).read().slice(0, 0), folder / "part-1a.parquet")
    (folder / "_SUCCESS").touch()
    (folder / ".part-0.parquet.crc").write_bytes(b"crc")
    (folder / "_temporary").mkdir()
    (folder / "_temporary" / "part-9.parquet").write_bytes(b"half")
    plan = make_plan(world.spec())
    assert plan.passed_over == ("accounts/.part-0.parquet.crc", "accounts/_SUCCESS", "accounts/_temporary")
    assert digest(world, go(plan)) == undisturbed


def test_a_folder_without_a_parquet_file_is_refused_as_input_empty(world: SmallWorld) -> None:
    shutil.rmtree(world.folder / "mails")
    refused(world, "file_missing")
    (world.folder / "mails").mkdir()
    (world.folder / "mails" / "_SUCCESS").touch()
    refused(world, "input_empty")


def test_a_symlink_out_of_the_folder_is_refused_and_one_inside_is_read_once(
    world: SmallWorld, undisturbed: str, tmp_path: Path
) -> None:
    (world.folder / "accounts" / "again.parquet").symlink_to(first(world))
    (world.folder / "accounts" / "loop").symlink_to(world.folder / "accounts")
    plan = make_plan(world.spec())
    assert plan.passed_over == ("accounts/again.parquet", "accounts/loop")
    assert digest(world, go(plan)) == undisturbed
    shutil.rmtree(world.store)
    outside = tmp_path / "outside.parquet"
    shutil.copy(first(world), outside)
    (world.folder / "accounts" / "part-9.parquet").symlink_to(outside)
    assert "part-9.parquet" in refused(world, "path_escapes_root")


MANY = 50_000 if os.environ.get("BATCHSCORE_EVERY_FAULT") else 5_000  # `make chaos` has all of GUARANTEES.md's


@pytest.mark.parametrize("n", [100, pytest.param(MANY, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_many_tiny_files_are_fine(n: int, tmp_path: Path) -> None:
    world = make_small_world(tmp_path / "world", n_accounts=N)
    table = pq.ParquetFile(first(world)).read().slice(0, 1)
    shutil.rmtree(world.folder / "accounts")
    for number in range(n):
        path = world.folder / "accounts" / f"part={number % 100}" / f"{number}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.set_column(0, "id", pa.array([number])), path)
    row = go(make_plan(world.spec(partition_rows=str(max(50, n // 10)))))
    assert counts(world, row)["score rows"] == n
