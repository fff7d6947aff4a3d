"""What columns get that are missing, misnamed or of another type; and what may differ between files without changing a bit."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from batchscore.errors import Refused
from batchscore.planner import make_plan
from tests.integration.bad_input.spoiling import Change, cast, change, change_all, digest, first, go, put, refused, rename
from tests.small_world import SmallWorld

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


def test_a_feature_that_the_model_wants_and_nothing_makes_is_refused_with_the_nearest_that_is_made(world: SmallWorld) -> None:
    path = world.folder / "features.yaml"
    path.write_text(path.read_text().replace("  burst: ", "  bursts: "))
    message = refused(world, "feature_contract")
    assert "burst: the model wants it, the feature set does not make it → did you mean 'bursts'?" in message


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
