"""A run over a history of accounts scores at each as-of what a run over the accounts as they stood then would have scored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore.digest import KeyDigest
from batchscore.errors import Refused
from batchscore.features.feature_set import read_feature_set
from batchscore.keys import key_digest
from batchscore.layout import Definitions, keys_set_aside
from batchscore.models.bundle import read_manifest
from batchscore.models.contract import conform
from batchscore.models.loading import load_scorer
from batchscore.plan import Score, Stage
from batchscore.planner import make_plan
from batchscore.ports import RunRow
from batchscore.proving import prove_run
from batchscore.sampling import sample_features
from batchscore.store import open_reader
from batchscore.training.frame import build_frame
from tests.run_digest import run_digest
from tests.small_world import NAMES, START, SmallWorld, make_small_world, pack
from tests.whole_runs import walk

AS_OFS = [datetime(2026, 1, day, tzinfo=UTC) for day in (5, 9, 14)]
DAY = timedelta(days=1)
DECLARED = "accounts: {table: accounts, key: id, created_at: created_at, "
HISTORY = DECLARED + "deleted_at: gone, history: {valid_from: since, valid_to: until}}"
ONE_ROW = DECLARED + "deleted_at: gone, immutable: [plan]}"
SPEC: dict[str, Any] = {
    "segment": "country",
    "as_of": "[2026-01-05, 2026-01-09, 2026-01-14]",
    "policy": "{threshold: 0.0, budget: 9}",
}
TYPES = {"id": pa.int64(), "plan": pa.int64(), "country": pa.string()}
MOMENT = pa.timestamp("us", "UTC")


def as_table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.table({name: pa.array([row[name] for row in rows], TYPES.get(name, MOMENT)) for name in rows[0]})


def history_of(accounts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Up to three rows an account: plan and country change at midnight or in the day; some end, some are deleted at last."""
    chance = np.random.default_rng(7)
    rows = []
    for account in accounts:
        changes = sorted({int(hours) for hours in chance.integers(-10 * 24, 14 * 24, chance.integers(1, 4))})
        for hour, end in zip(changes, [*changes, None][1:], strict=True):
            rows.append(
                account
                | {
                    "since": START + timedelta(hours=hour // 12 * 12),
                    "until": None if end is None else START + timedelta(hours=end // 12 * 12),
                    "plan": int(chance.integers(0, 3)),
                    "country": "de" if chance.random() < 0.5 else "nl",
                    "gone": START + timedelta(hours=hour + 60) if end is None and chance.random() < 0.2 else None,
                }
            )
        if chance.random() < 0.3:
            rows[-1]["until"] = rows[-1]["since"] + DAY
    return [row for row in rows if row["until"] is None or row["until"] > row["since"]]


def as_of_rows(rows: list[dict[str, Any]], as_of: datetime) -> list[dict[str, Any]]:
    """The accounts as they stood, one row each, picked by hand."""
    found = []
    for account in sorted({row["id"] for row in rows}):
        held = sorted((row for row in rows if row["id"] == account), key=lambda row: row["since"])
        begun = [row for row in held if row["since"] < as_of]
        latest = begun[-1] if begun else held[0]
        holds = bool(begun) and (latest["until"] is None or latest["until"] >= as_of)
        found.append(
            {
                "id": account,
                "created_at": latest["created_at"],
                "gone": latest["gone"] if begun else None,
                "plan": latest["plan"] if holds else None,
                "country": latest["country"] if holds else None,
            }
        )
    return found


def rewritten(world: SmallWorld, rows: list[dict[str, Any]], declared: str, n_files: int) -> None:
    """The world's accounts are these rows, in so many files, and a bundle is packed for a feature set that says so."""
    folder, features = world.folder / "accounts", world.folder / "features.yaml"
    for file in folder.iterdir():
        file.unlink()
    order = np.random.default_rng(n_files).permutation(len(rows))
    for number, part in enumerate(np.array_split(order, n_files)):
        pq.write_table(as_table([rows[place] for place in part]), folder / f"part-{number}.parquet")
    lines = [declared if line.startswith("accounts:") else line for line in features.read_text().splitlines()]
    features.write_text("\n".join(lines) + "\n")
    digest = read_feature_set(features).digest
    (world.folder / "bundle").rename(world.folder / f"bundle-{digest[:8]}-{n_files}-before")
    pack(world.folder, np.random.default_rng(1))


def outputs(world: SmallWorld, row: RunRow, stage: Stage, as_of: datetime) -> list[dict[str, Any]]:
    """The scores or reasons of one as-of."""
    role = {Stage.SCORE: "scores", Stage.REASONS: "reasons"}[stage]
    receipts = open_reader(world.store).receipts(row.run_id, stage)
    files = [output.path for receipt in receipts for output in receipt.outputs if output.role == role]
    table = pa.concat_tables([pq.read_table(world.store / file) for file in files])
    return [one for one in table.to_pylist() if one["as_of"] == as_of]


def margins(world: SmallWorld, row: RunRow, as_of: datetime) -> dict[int, float]:
    return {one["account_id"]: one["margin"] for one in outputs(world, row, Stage.SCORE, as_of)}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[SmallWorld, list[dict[str, Any]], RunRow]:
    """A world whose accounts are a history in three files, its rows, and a finished run of it."""
    world = make_small_world(tmp_path_factory.mktemp("told"), n_accounts=120)
    rows = history_of(pq.read_table(world.folder / "accounts").to_pylist())
    rewritten(world, rows, HISTORY, n_files=3)
    return world, rows, walk(world, **SPEC)


def test_each_as_of_is_scored_as_the_accounts_stood_and_every_account_is_planned_once(
    told: tuple[SmallWorld, list[dict[str, Any]], RunRow], tmp_path: Path
) -> None:
    world, rows, row = told
    reader = open_reader(world.store)
    plan = reader.run(row.run_id).plan
    proof = prove_run(plan, Definitions.of(plan), reader, row.run_id)
    assert proof.closes
    ids = pa.array(sorted({row["id"] for row in rows}), pa.uint64())
    assert proof.accounts == str(key_digest(ids))
    assert len(ids) < len(rows)
    other = make_small_world(tmp_path, n_accounts=120)
    for number, as_of in enumerate(AS_OFS):
        stood = as_of_rows(rows, as_of)
        rewritten(other, stood, ONE_ROW, n_files=number + 1)
        alone = walk(other, **SPEC | {"as_of": f"{as_of:%Y-%m-%d}"})
        assert margins(world, row, as_of) == margins(other, alone, as_of)
        country = {one["id"]: one["country"] for one in stood}
        segments = {flag["account_id"]: flag["_segment"] for flag in outputs(world, row, Stage.REASONS, as_of)}
        assert segments == {account: country[account] for account in segments}
        assert segments
        there = [one["id"] for one in stood if one["created_at"] < as_of and (one["gone"] is None or one["gone"] > as_of)]
        assert proof.as_ofs[number].planned == str(key_digest(pa.array(there, pa.uint64())))
    guarded = [name for receipt in reader.receipts(row.run_id, Stage.SCORE) for name in receipt.counts if "guarded" in name]
    assert guarded


def test_a_history_gives_the_same_bits_in_one_file_or_many_however_it_is_cut(
    told: tuple[SmallWorld, list[dict[str, Any]], RunRow], tmp_path: Path
) -> None:
    world, rows, row = told
    other = make_small_world(tmp_path, n_accounts=120)
    rewritten(other, rows, HISTORY, n_files=1)
    again = walk(other, **SPEC, partition_rows="7")
    assert run_digest(other.store, again.run_id) == run_digest(world.store, row.run_id)


def test_what_a_quarantine_sets_aside_is_what_the_partition_would_have_counted(
    told: tuple[SmallWorld, list[dict[str, Any]], RunRow],
) -> None:
    world, rows, row = told
    reader = open_reader(world.store)
    definitions = Definitions.of(reader.run(row.run_id).plan)
    works = [partition.work for partition in reader.partitions(row.run_id, Stage.SCORE) if isinstance(partition.work, Score)]
    aside = [keys_set_aside(definitions, work, AS_OFS[1]) for work in works]
    assert sum(one.planned.n + one.outside.n + one.repeated.n for one in aside) == len(rows)
    planned = prove_run(reader.run(row.run_id).plan, definitions, reader, row.run_id).as_ofs[1].planned
    assert KeyDigest.parse(planned) == sum((one.planned for one in aside), KeyDigest())


def test_the_training_frame_and_a_sample_are_what_is_scored(
    told: tuple[SmallWorld, list[dict[str, Any]], RunRow], tmp_path: Path
) -> None:
    world, _, row = told
    build_frame(world.spec(**SPEC), AS_OFS[1], tmp_path / "frame.parquet")
    frame = pq.read_table(tmp_path / "frame.parquet")
    made = load_scorer(read_manifest(world.folder / "bundle").reference).margin(conform(frame, tuple(NAMES)))
    scored = margins(world, row, AS_OFS[1])
    assert dict(zip(frame["account_id"].to_pylist(), made.tolist(), strict=True)) == scored
    _, sample = sample_features(world.spec(**SPEC), AS_OFS[1], 9)
    wanted = set(sample["account_id"].to_pylist())
    assert sample.to_pylist() == [one for one in frame.to_pylist() if one["account_id"] in wanted]


def test_rows_of_two_files_that_hold_at_one_moment_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchscore.sources.works.GROUP_FILES", 1)  # no attempt sees both
    world = make_small_world(tmp_path, n_accounts=120)
    rows = history_of(pq.read_table(world.folder / "accounts").to_pylist())
    rewritten(world, rows, HISTORY, n_files=1)
    pq.write_table(as_table([rows[5] | {"plan": 1}]), world.folder / "accounts" / "part-9.parquet")
    assert make_plan(world.spec(**SPEC)).inputs["accounts"][1].n_rows == 1
    with pytest.raises(Refused) as refused:
        walk(world, **SPEC)
    assert refused.value.reason == "history_overlap"
    assert str(rows[5]["id"]) not in str(refused.value)
