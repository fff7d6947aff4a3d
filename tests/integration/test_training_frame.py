"""features build: the frame to train on is what a run scores, and labels stand beside it by exact id."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from batchscore.attempt import attempt
from batchscore.cli.features import features
from batchscore.desk import Opinion
from batchscore.errors import BatchscoreError, Refused
from batchscore.executors.inline import InlineExecutor
from batchscore.flag import Disposition
from batchscore.keys import IdKind
from batchscore.models.bundle import read_manifest
from batchscore.models.contract import conform
from batchscore.models.loading import load_scorer
from batchscore.pipeline import run
from batchscore.plan import Stage
from batchscore.planner import make_plan
from batchscore.store import open_desk, open_reader, open_store
from batchscore.training import frame as training_frame
from batchscore.training.built import BuiltFrame
from tests.small_world import NAMES, SmallWorld, make_small_world

AS_OF = datetime(2026, 1, 15, tzinfo=UTC)


@pytest.fixture
def world(tmp_path: Path) -> SmallWorld:
    return make_small_world(tmp_path / "world", n_accounts=120)


def built(world: SmallWorld, *options: str, as_of: str = "2026-01-15") -> BuiltFrame:
    when = [] if "--pairs" in options else ["--as-of", as_of]
    arguments = ["build", str(world.spec_path), *when, "--out", str(world.folder / "frame.parquet")]
    done = CliRunner().invoke(features, [*arguments, *options, "--json"], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return BuiltFrame.model_validate_json(done.output)


def frame_of(world: SmallWorld) -> pa.Table:
    return pq.read_table(world.folder / "frame.parquet")


def labels_file(world: SmallWorld, labels: Mapping[str, Any]) -> str:
    path = world.folder / "labels.parquet"
    pq.write_table(pa.table(dict(labels)), path)
    return str(path)


def scored(world: SmallWorld) -> dict[int | str, float]:
    """The margins of a run of the world, by account, as of `AS_OF`."""
    plan = make_plan(world.spec())
    row = run(
        plan, executor=InlineExecutor(attempt), store=open_store(world.store, world.kind), observer=lambda _: None, again=False
    )
    outputs = [output for receipt in open_reader(world.store).receipts(row.run_id, Stage.SCORE) for output in receipt.outputs]
    tables = [pq.read_table(world.store / output.path) for output in outputs if output.role == "scores"]
    table = pa.concat_tables(tables)
    table = table.filter(pc.equal(table["as_of"], pa.scalar(AS_OF, table["as_of"].type)))
    return dict(zip(table["account_id"].to_pylist(), table["margin"].to_pylist(), strict=True))


@pytest.mark.parametrize("kind", ["integer", "string"])
def test_a_model_gives_the_frame_the_margins_that_a_run_gives(
    tmp_path: Path, kind: IdKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_small_world(tmp_path, n_accounts=120, kind=kind)
    monkeypatch.setattr(training_frame, "_RANGE_ROWS", 50)
    told, frame = built(world), frame_of(world)
    assert (told.n_rows, told.n_features) == (len(frame), len(NAMES))
    assert frame.column_names == ["account_id", *NAMES]
    margins = load_scorer(read_manifest(world.folder / "bundle").reference).margin(conform(frame, tuple(NAMES)))
    assert dict(zip(frame["account_id"].to_pylist(), margins.tolist(), strict=True)) == scored(world)


def test_no_bundle_is_needed_and_nothing_but_the_frame_is_left(world: SmallWorld) -> None:
    shutil.rmtree(world.folder / "bundle")
    before = set(world.folder.rglob("*"))
    built(world)
    assert set(world.folder.rglob("*")) - before == {world.folder / "frame.parquet"}


def test_labels_stand_beside_their_accounts_and_null_beside_the_others(world: SmallWorld) -> None:
    ids = sorted(pq.read_table(world.folder / "accounts")["id"].to_pylist())
    bad = {ids[1], 2**53 + 1}  # a float would take 2^53 and 2^53 + 1 for one account
    known = [*ids[:40], 12_345_678_901]
    told = built(world, "--labels", labels_file(world, {"id": known, "label": [account in bad for account in known]}))
    frame = frame_of(world)
    labels = dict(zip(frame["account_id"].to_pylist(), frame["label"].to_pylist(), strict=True))
    assert labels == {account: int(account in bad) if account in known else None for account in labels}
    assert told.n_labelled == sum(label is not None for label in labels.values())
    assert told.n_positive == sum(label or 0 for label in labels.values())
    assert told.n_unused == len(known) - told.n_labelled


def csv_file(world: SmallWorld, name: str, *lines: str) -> str:
    path = world.folder / f"{name}.csv"
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


@pytest.mark.parametrize("kind", ["integer", "string"])
def test_pairs_get_the_very_rows_of_the_frames_of_their_dates(
    tmp_path: Path, kind: IdKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_small_world(tmp_path, n_accounts=120, kind=kind)
    whole = []
    for day in ("2026-01-08", "2026-01-15"):
        built(world, as_of=day)
        whole += [{"as_of": day, **row} for row in frame_of(world).to_pylist()]
        (world.folder / "frame.parquet").unlink()
    wanted = whole[::5]
    unborn = "x" if kind == "string" else 2**64 - 1
    asked = [(row["account_id"], row["as_of"]) for row in (*wanted[::-1], wanted[0])]
    lines = [f"{account},{as_of}" for account, as_of in [*asked, (unborn, "2026-01-08")]]
    monkeypatch.setattr(training_frame, "_RANGE_ROWS", 60)
    told = built(world, "--pairs", csv_file(world, "pairs", "account_id,as_of", *lines))
    frame = frame_of(world)
    assert (told.n_rows, told.n_absent, len(told.as_ofs)) == (len(wanted), 1, 2)
    assert frame.column_names == ["account_id", "as_of", *NAMES]
    found = [{"as_of": f"{row.pop('as_of'):%Y-%m-%d}", **row} for row in frame.to_pylist()]
    key = {"integer": lambda row: row["account_id"], "string": lambda row: row["account_id"].encode()}[kind]
    assert repr(found) == repr(sorted(sorted(wanted, key=lambda row: row["as_of"]), key=key))


def test_labels_come_from_what_people_decided_in_the_queue(world: SmallWorld) -> None:
    scored(world)
    flagged = [row.flag.account_id for row in open_reader(world.store).queue(None, limit=4)]
    said = [Disposition.CONFIRMED, Disposition.CLEARED, Disposition.INCONCLUSIVE]
    open_desk(world.store).decide(
        [
            Opinion(queue="abuse", account_id=account_id, disposition=word, by="ann")
            for account_id, word in zip(flagged, said, strict=False)
        ]
    )
    told = built(world, "--queue-labels")
    frame = frame_of(world)
    labels = dict(zip(frame["account_id"].to_pylist(), frame["label"].to_pylist(), strict=True))
    assert {account_id: label for account_id, label in labels.items() if label is not None} == {flagged[0]: 1, flagged[1]: 0}
    assert (told.n_labelled, told.n_positive, told.n_early) == (2, 1, 0)


def test_labels_of_an_as_of_stand_beside_its_rows_alone(world: SmallWorld) -> None:
    built(world)
    ids = frame_of(world)["account_id"].to_pylist()[:40]
    (world.folder / "frame.parquet").unlink()
    labels = [f"{account},2026-01-{day},{(account + number) % 2}" for number, day in enumerate(("08", "15")) for account in ids]
    file = csv_file(world, "labels", "account_id,as_of,label", *labels)
    told = built(world, "--pairs", file, "--labels", file)
    assert told.n_labelled == told.n_rows
    assert told.n_unused == told.n_absent
    for row in frame_of(world).to_pylist():
        assert row["label"] == (row["account_id"] + (row["as_of"].day == 15)) % 2


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["account_id,as_of"], "input_empty"),
        (["account_id,as_of", "1,"], "spec_invalid"),
        (["account_id,as_of", "1,2026-01-15T00:30:00Z"], "spec_invalid"),
    ],
)
def test_pairs_without_a_date_or_within_the_grain_are_refused(world: SmallWorld, lines: list[str], reason: str) -> None:
    with pytest.raises(Refused) as refused:
        built(world, "--pairs", csv_file(world, "pairs", *lines))
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ({"id": [1.0], "label": [1]}, "column_type"),
        ({"id": [1], "lable": [1]}, "column_type"),
        ({"id": [1], "label": [2]}, "column_type"),
        ({"id": [1], "label": ["1"]}, "column_type"),
        ({"id": [1, 1], "label": [1, 0]}, "duplicate_id"),
    ],
)
def test_labels_that_would_be_a_guess_are_refused(world: SmallWorld, labels: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refused) as refused:
        built(world, "--labels", labels_file(world, labels))
    assert refused.value.reason == reason
    assert not (world.folder / "frame.parquet").exists()


def test_a_feature_called_label_cannot_stand_beside_labels(world: SmallWorld) -> None:
    path = world.folder / "features.yaml"
    path.write_text(path.read_text() + "  label: {age: created_at}\n")
    with pytest.raises(Refused, match="the column of labels"):
        built(world, "--labels", labels_file(world, {"id": [1], "label": [1]}))
    assert not (world.folder / "frame.parquet").exists()


def test_a_file_is_never_written_over(world: SmallWorld) -> None:
    (world.folder / "frame.parquet").write_text("somebody's")
    with pytest.raises(Refused) as refused:
        built(world)
    assert refused.value.reason == "file_exists"
    assert (world.folder / "frame.parquet").read_text() == "somebody's"


@pytest.mark.parametrize("as_of", ["2026-01-15T00:30:00Z", "2026-01-15T00:00:00.5Z"])
def test_a_moment_within_the_grain_is_refused(world: SmallWorld, as_of: str) -> None:
    with pytest.raises(BatchscoreError, match="is not a whole day"):
        built(world, as_of=as_of)


def test_what_planning_refuses_of_the_input_is_refused(world: SmallWorld) -> None:
    path = world.folder / "features.yaml"
    path.write_text(path.read_text().replace("mails.bytes", "mails.bites"))
    with pytest.raises(Refused) as refused:
        built(world)
    assert refused.value.reason == "column_missing"
