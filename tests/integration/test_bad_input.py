"""What bad input gets, in whole plans and runs: refused with the catalogue's reason, set aside, or the same bits. Never a guess.

Not found by a file's own checks: a flip in a page without a checksum (Parquet's default) that decodes to other values. A
file's footer is pinned by its SHA-256, and size and time of change catch every ordinary replacement.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from batchscore.attempt import attempt
from batchscore.errors import BatchscoreError, PartitionError, QuarantineStop, Refused
from batchscore.executors.inline import InlineExecutor
from batchscore.pipeline import run
from batchscore.plan import Plan
from batchscore.planner import make_plan
from batchscore.ports import RunRow
from batchscore.sources.parquet import read_batches
from batchscore.sources.parquet_files import list_inputs
from batchscore.store import open_reader, open_store
from tests.run_digest import run_digest
from tests.small_world import SmallWorld, make_small_world

N = 60
Change = Callable[[pa.Table], pa.Table]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> SmallWorld:
    return make_small_world(tmp_path_factory.mktemp("pristine"), n_accounts=N)


@pytest.fixture
def world(pristine: SmallWorld, tmp_path: Path) -> SmallWorld:
    folder = tmp_path / "world"
    shutil.copytree(pristine.folder, folder)
    return SmallWorld(folder=folder, n_accounts=N, kind="integer", text=pristine.text)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    world = make_small_world(tmp_path_factory.mktemp("undisturbed"), n_accounts=N)
    return digest(world, go(make_plan(world.spec())))


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
    encryption = pytest.importorskip("pyarrow.parquet.encryption")

    class Keys(encryption.KmsClient):  # type: ignore[misc, name-defined]
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


WRONG_COLUMNS: dict[str, tuple[str, Change, str, str]] = {
    "a feature column is missing": ("accounts", lambda table: table.drop_columns("plan"), "column_missing", "accounts.plan"),
    "a feature column is renamed": ("accounts", rename("plan", "plans"), "column_missing", "'plans'"),
    "a feature column has another case": ("accounts", rename("plan", "Plan"), "column_missing", "'Plan'"),
    "the key has another case": ("accounts", rename("id", "ID"), "column_missing", "'ID'"),
    "a time column is missing": ("mails", rename("known", "knwon"), "column_missing", "'knwon'"),
    "a measured column is missing": ("mails", lambda table: table.drop_columns("bytes"), "column_missing", "mails.bytes"),
    "a feature column stands twice": (
        "accounts",
        lambda table: table.append_column("plan", table["plan"]),
        "column_duplicate",
        "accounts.plan",
    ),
    "the key stands twice": ("mails", lambda table: table.append_column("id", table["id"]), "column_duplicate", "mails.id"),
    "ids are float": ("accounts", cast("id", pa.float64()), "id_physical_type", "double"),
    "ids are whole decimals": ("accounts", cast("id", pa.decimal128(19, 0)), "id_physical_type", "decimal128"),
    "ids are bool": ("mails", put("id", lambda ids: pa.array([True] * len(ids))), "id_physical_type", "bool"),
    "ids are text where integers are declared": ("mails", cast("id", pa.string()), "column_type", "string"),
    "a feature column is a struct": (
        "accounts",
        put("plan", lambda plan: pa.array([{"a": 1}] * len(plan))),
        "column_type",
        "struct",
    ),
    "a feature column is a list": ("accounts", put("plan", lambda plan: pa.array([[1]] * len(plan))), "column_type", "list"),
    "a feature column is text": ("accounts", cast("plan", pa.string()), "column_type", "string"),
    "a feature column is a duration": ("accounts", cast("plan", pa.duration("s")), "column_type", "duration"),
    "a measured column is a list": ("mails", put("bytes", lambda column: pa.array([[1]] * len(column))), "column_type", "list"),
    "a sum is of floats": ("mails", cast("bytes", pa.float64()), "type_drift", "double"),
    "a time is text": ("mails", cast("at", pa.string()), "column_type", "string"),
    "a time is naive and no zone is declared": (
        "mails",
        put("at", lambda at: at.cast(pa.timestamp("us"))),
        "naive_timestamp",
        "zone",
    ),
    "a time is a date and no zone is declared": ("accounts", cast("created_at", pa.date32()), "naive_timestamp", "zone"),
    "a time is an integer and no unit is declared": ("mails", cast("at", pa.int64()), "column_type", "unit"),
}


@pytest.mark.parametrize("case", list(WRONG_COLUMNS))
def test_the_plan_is_refused_when(case: str, world: SmallWorld) -> None:
    table, how, reason, said = WRONG_COLUMNS[case]
    change(first(world, table), how)
    assert said in refused(world, reason)


@pytest.mark.parametrize(
    ("one", "other"),
    [(pa.int64(), pa.float64()), (pa.int64(), pa.uint64()), (pa.bool_(), pa.int64()), (pa.int32(), pa.float32())],
)
def test_types_that_drift_with_loss_are_refused_naming_both(one: pa.DataType, other: pa.DataType, world: SmallWorld) -> None:
    change_all(world, "accounts", cast("plan", one))
    change(first(world), cast("plan", other))
    message = refused(world, "type_drift")
    assert str(one) in message
    assert str(other) in message


def test_several_mistakes_come_together(world: SmallWorld) -> None:
    change(first(world), rename("plan", "plans"))
    change(first(world, "mails"), cast("id", pa.float64()))
    with pytest.raises(Refused) as caught:
        make_plan(world.spec())
    assert {problem.where for problem in caught.value.problems} == {"accounts.plan", "mails.id"}


EQUAL: dict[str, tuple[str, Change, dict[str, Any]]] = {
    "columns are permuted": ("accounts", lambda table: table.select(table.column_names[::-1]), {}),
    "there are more columns": (
        "mails",
        lambda table: table.append_column("zz", table["id"]).add_column(0, "aa", table["known"]),
        {},
    ),
    "ids are uint64": ("accounts", cast("id", pa.uint64()), {}),
    "text is dictionary-encoded": (
        "mails",
        put("recipient", lambda names: names.cast(pa.string()).dictionary_encode()),
        {},
    ),
    "text is large": ("mails", cast("recipient", pa.large_string()), {}),
    "times are in nanoseconds": ("mails", cast("at", pa.timestamp("ns", "UTC")), {}),
    "times are in milliseconds": ("mails", cast("at", pa.timestamp("ms", "UTC")), {}),
    "times have another zone": ("mails", cast("known", pa.timestamp("us", "Asia/Kathmandu")), {}),
    "integers are narrower": ("mails", cast("bytes", pa.int32()), {}),
    "small integers are unsigned": ("accounts", cast("plan", pa.uint8()), {}),
    "pages are plain": ("accounts", lambda table: table, {"use_dictionary": False, "compression": "none"}),
    "row groups are small": ("mails", lambda table: table, {"row_group_size": 7, "compression": "zstd"}),
}


def test_a_run_has_the_same_bits_when_every_file_is_written_in_another_way(world: SmallWorld, undisturbed: str) -> None:
    for table, how, settings in EQUAL.values():
        change_all(world, table, how, **settings)
    assert digest(world, go(make_plan(world.spec()))) == undisturbed


def test_a_run_has_the_same_bits_when_each_file_is_written_in_a_way_of_its_own(world: SmallWorld, undisturbed: str) -> None:
    for table in ("accounts", "mails"):
        paths = sorted((world.folder / table).rglob("*.parquet"))
        cases = [(how, settings) for of, how, settings in EQUAL.values() if of == table]
        for number, (how, settings) in enumerate(cases):
            change(paths[number % len(paths)], how, **settings)
    assert digest(world, go(make_plan(world.spec()))) == undisturbed


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


def counts(world: SmallWorld, row: RunRow) -> dict[str, int]:
    from batchscore.plan import Stage

    reader = open_reader(world.store)
    total: dict[str, int] = {}
    for stage in Stage:
        for receipt in reader.receipts(row.run_id, stage):
            for name, n in receipt.counts.items():
                total[f"{stage} {name}"] = total.get(f"{stage} {name}", 0) + n
    return total


def test_null_and_negative_ids_are_rejected_and_the_others_scored(world: SmallWorld) -> None:
    change(first(world), put("id", lambda ids: pa.array([None, -5, *ids.to_pylist()[2:]], pa.int64())))
    change(first(world, "mails"), put("id", lambda ids: pa.array([None, None, -1, *ids.to_pylist()[3:]], pa.int64())))
    found = counts(world, go(make_plan(world.spec())))
    assert (found["freeze rejected null_id"], found["freeze rejected id_range"], found["freeze rows"]) == (1, 1, N)
    assert (found["rollup rejected null_id"], found["rollup rejected id_range"]) == (2, 1)
    assert found["score rows"] == N - 2


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


def test_ids_at_the_edges_of_64_bits_come_out_as_they_went_in(world: SmallWorld) -> None:
    edges = [0, 2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1]
    change_all(world, "accounts", lambda table: table.slice(0, 0))
    table = pq.ParquetFile(first(world)).schema_arrow
    held = pa.table({"id": edges, "created_at": pa.array([datetime(2020, 1, 1, tzinfo=UTC)] * 5), "plan": [1] * 5}).cast(table)
    pq.write_table(held, first(world))
    row = go(make_plan(world.spec(policy="{queue: abuse, threshold: 0.0}")))
    from batchscore.plan import Stage

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
