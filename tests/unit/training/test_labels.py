"""Which labels may stand beside an account's features of a moment, and which are refused rather than guessed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore.document import parse_document
from batchscore.errors import Refused
from batchscore.features.feature_set import FeatureSet
from batchscore.training.labels import Labels, read_labels

AS_OF = datetime(2026, 1, 15, tzinfo=UTC)
TEXT = """feature_set: told
version: 1
account_id: {kind}
accounts: {{table: accounts, key: user_id, created_at: made}}
features:
  age: {{age: created_at}}
"""
INTEGER, STRING = (
    parse_document(TEXT.format(kind=kind), FeatureSet, name="f.yaml", check=FeatureSet.mistakes) for kind in ("integer", "string")
)
FRAME = pa.table({"account_id": pa.array([2, 2**53, 2**53 + 1, 2**64 - 1], pa.uint64())})


def labels(folder: Path, *lines: str, mature: int | None = None, feature_set: FeatureSet = INTEGER) -> Labels:
    path = folder / "labels.csv"
    path.write_text("".join(f"{line}\n" for line in lines))
    return read_labels(path, feature_set, None if mature is None else timedelta(days=mature))


def beside(held: Labels, name: str = "label", as_of: datetime = AS_OF) -> list[Any]:
    return list(held.beside(FRAME, as_of)[name].to_pylist())


def test_labels_are_joined_by_exact_id_from_csv_as_from_parquet(tmp_path: Path) -> None:
    held = labels(tmp_path, "user_id,label", f"{2**53 + 1},1", f"{2**64 - 1},0", "77,1", ",1")
    assert beside(held) == [None, None, 1, 0]
    assert held.n_unused == 1
    ids = pa.array([2**53 + 1, 2**64 - 1, 77, None], pa.uint64())
    pq.write_table(pa.table({"account_id": ids, "label": [1.0, 0.0, 1.0, 1.0]}), tmp_path / "labels.parquet")
    assert beside(read_labels(tmp_path / "labels.parquet", INTEGER)) == [None, None, 1, 0]


def test_ids_of_text_keep_every_byte(tmp_path: Path) -> None:
    held = labels(tmp_path, "account_id,label", "007,1", " 7,0", '"a,b",1', feature_set=STRING)
    frame = pa.table({"account_id": ["7", "007", " 7", "a,b"]})
    assert held.beside(frame, AS_OF)["label"].to_pylist() == [None, 1, 0, 1]


DECIDED = (
    "account_id,label,decided_at,probability",
    "2,1,2026-01-14T23:59:59Z,1",
    f"{2**53},1,2026-01-16,0.5",
    f"{2**53},0,2026-01-17T06:00:00+02:00,0.25",
    f"{2**53},1,2026-01-03,0.5",
    f"{2**53 + 1},1,2026-01-15,1",
    f"{2**64 - 1},1,2026-01-29,1",
    "5,,,",
)


def test_a_decision_before_the_as_of_is_no_label_and_of_later_ones_the_latest_counts(tmp_path: Path) -> None:
    held = labels(tmp_path, *DECIDED)
    frame = held.beside(FRAME, AS_OF)
    assert frame["label"].to_pylist() == [None, 0, 1, 1]
    assert frame["weight"].to_pylist() == [None, 4.0, 1.0, 1.0]
    assert (held.n_early, held.n_immature, held.n_changed, held.n_unused) == (1, 0, 1, 3)


@pytest.mark.parametrize(
    ("days", "found"),
    [(14, [None, 0, 1, None]), (1, [None, None, 1, None]), (2, [None, 1, 1, None]), (15, [None] * 4)],
)
def test_decisions_count_within_their_time_once_they_reach_so_far(tmp_path: Path, days: int, found: list[int | None]) -> None:
    """The newest decision is of 29 January: nobody knows yet what the fifteenth day brings."""
    held = labels(tmp_path, *DECIDED, mature=days)
    assert beside(held) == found
    assert held.n_early + held.n_immature == found.count(None)


def test_labels_of_an_as_of_are_of_no_other(tmp_path: Path) -> None:
    held = labels(tmp_path, "account_id,as_of,label", "2,2026-01-15,1", "2,2026-01-08,0", f"{2**53},2026-01-08,1")
    assert beside(held) == [1, None, None, None]
    assert held.n_unused == 2
    assert beside(held, as_of=AS_OF - timedelta(days=7)) == [0, 1, None, None]
    assert held.n_unused == 0


def test_the_same_label_twice_is_one(tmp_path: Path) -> None:
    assert len(labels(tmp_path, "account_id,decided_at,label", "2,2026-01-15,1", "2,2026-01-15T00:00:00Z,1").rows) == 1


def test_no_labels_at_all_are_none_of_any_row(tmp_path: Path) -> None:
    assert beside(labels(tmp_path, "account_id,label,decided_at", mature=7)) == [None] * 4


@pytest.mark.parametrize(
    ("lines", "mature", "reason"),
    [
        (["account_id,label", "1.0,1"], None, "column_type"),
        (["account_id,label", "-1,1"], None, "column_type"),
        (["account_id,label", "1,2"], None, "column_type"),
        (["account_id,lable", "1,1"], None, "column_type"),
        (["id,label", "1,1"], None, "column_type"),
        (["account_id,label,decided_at", "1,1,2026-01-15T06:00:00"], None, "column_type"),
        (["account_id,label,decided_at", "1,1,15.01.2026"], None, "column_type"),
        (["account_id,label,decided_at", "1,1,"], None, "column_type"),
        (["account_id,label,probability", "1,1,0"], None, "column_type"),
        (["account_id,label,probability", "1,1,1.5"], None, "column_type"),
        (["account_id,label,probability", "1,1,"], None, "column_type"),
        (["account_id,label", "1,1"], 7, "column_missing"),
        (["account_id,label", "1,1", "1,1"], None, "duplicate_id"),
        (["account_id,label,decided_at", "1,1,2026-01-15", "1,0,2026-01-15"], None, "label_conflict"),
        (["account_id,label,as_of", "1,1,2026-01-15", "1,0,2026-01-15"], None, "label_conflict"),
    ],
)
def test_labels_that_would_be_a_guess_are_refused_and_no_value_is_told(
    tmp_path: Path, lines: list[str], mature: int | None, reason: str
) -> None:
    with pytest.raises(Refused) as refused:
        labels(tmp_path, *lines, mature=mature)
    assert refused.value.reason == reason
    assert "15.01" not in str(refused.value)


def test_a_time_without_a_zone_is_refused_of_parquet_too(tmp_path: Path) -> None:
    rows = {"account_id": [1], "label": [1], "decided_at": [datetime(2026, 1, 15)]}
    pq.write_table(pa.table(rows), tmp_path / "labels.parquet")
    with pytest.raises(Refused, match="naive_timestamp"):
        read_labels(tmp_path / "labels.parquet", INTEGER)
