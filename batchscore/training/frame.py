"""The training frame: every account's features as of a date, by the code that scores; with labels beside them if there are any.

A model is trained before there is a bundle, so the spec's bundles are not looked at. The input is frozen and rolled up into
a scratch folder beside the frame, which is removed: memory follows a range of accounts, disk the input.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.errors import Refused
from batchscore.features.feature_set import FeatureSet, read_feature_set
from batchscore.features.frame import make_frame, population
from batchscore.features.python import check_row_wise
from batchscore.features.rollup import roll_up
from batchscore.features.windows import prepare
from batchscore.files import publish, write_named_by_digest, write_parquet
from batchscore.key_index import KeyIndex
from batchscore.keys import ACCOUNT_ID
from batchscore.plan import InputFile, KeyRange, Reference
from batchscore.planner import read_inputs, refuse_mismatch
from batchscore.receipt import Output
from batchscore.sources.freeze import freeze_outside_a_run, plan_rollup, read_events
from batchscore.spec import RunSpec
from batchscore.training.built import BuiltFrame
from batchscore.training.labels import LABEL, labelled, read_labels

_RANGE_ROWS: Final = 50_000


def build_frame(spec: RunSpec, as_of: datetime, path: Path, *, labels: Path | None = None) -> BuiltFrame:
    """Write ``account_id``, every feature and, with ``labels``, ``label`` (int8, null where there is none) to ``path``.

    One row for each account that existed at ``as_of``, sorted by account id. Types are those of the frame that is scored: counts
    and sums int64, other values float64 with NaN for missing, account columns as they are.

    Args:
        spec: Its as-ofs and bundles are left alone.
        as_of: A whole number of the feature set's grain.
        path: A new Parquet file. It appears whole or not at all.
        labels: Parquet with the accounts' key (or ``account_id``) and ``label``: 0 or 1, one row an account.

    Raises:
        Refused: ``file_exists``, ``write_failed``; what planning refuses of spec, feature set, inputs; what `read_labels` does.
        PartitionError: the input cannot be read.
    """
    feature_set = read_feature_set(Path(spec.feature_set))
    refuse_mismatch(spec.at((as_of,), release="none"), feature_set, ())
    check_row_wise(feature_set)
    _refuse_place(path)
    inputs, _, _ = read_inputs(spec, feature_set)
    held = None if labels is None else read_labels(labels, feature_set)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".batchscore-frame-") as scratch:
        frames = training_frames(spec, feature_set, inputs, as_of, Path(scratch))
        counts = _Counts()
        _write(counts.counted(frames if held is None else (labelled(frame, held) for frame in frames)), path)
    built = BuiltFrame(
        path=str(path),
        as_of=as_of,
        feature_set=feature_set.feature_set,
        feature_set_digest=feature_set.digest,
        n_rows=counts.n_rows,
        n_features=len(feature_set.names),
    )
    if held is None:
        return built
    n_unused = len(held) - held[LABEL].null_count - counts.n_labelled
    return built.model_copy(
        update={"n_labelled": counts.n_labelled, "n_positive": counts.n_positive, "n_unused": n_unused},
    )


def training_frames(
    spec: RunSpec, feature_set: FeatureSet, inputs: Mapping[str, tuple[InputFile, ...]], as_of: datetime, scratch: Path
) -> Iterator[pa.Table]:
    """``account_id`` and features of the accounts that existed at ``as_of``, in order, about `_RANGE_ROWS` accounts a table.

    ``inputs`` are those of `planner.read_inputs`. Snapshots and rollups go into ``scratch`` and stay there.
    """
    held = write_named_by_digest(feature_set.frozen_json().encode(), scratch, "json")
    kind = feature_set.account_id
    table = feature_set.accounts.table
    frozen = freeze_outside_a_run(spec.sources[table], inputs.get(table, ()), feature_set, held, scratch)
    snapshots = KeyIndex.build(scratch, kind, frozen)
    rollups = {
        events.table: KeyIndex.build(scratch, kind, _roll_up(inputs[events.table], events.table, feature_set, held, scratch))
        for events in feature_set.events
    }
    for keys, _ in snapshots.cut(_RANGE_ROWS):
        yield _frame(snapshots, rollups, keys, feature_set, as_of)


class _Counts:
    """How many rows, labels and positive labels went by."""

    def __init__(self) -> None:
        self.n_rows = self.n_labelled = self.n_positive = 0

    def counted(self, frames: Iterable[pa.Table]) -> Iterator[pa.Table]:
        for frame in frames:
            self.n_rows += len(frame)
            if LABEL in frame.column_names:
                self.n_labelled += len(frame) - frame[LABEL].null_count
                self.n_positive += pc.sum(frame[LABEL]).as_py() or 0
            yield frame


def _refuse_place(path: Path) -> None:
    if path.exists():
        raise Refused("file_exists", "a file is there already", where=str(path), remedy="name a new file, or move that one away")
    if not path.absolute().parent.is_dir():
        raise Refused("file_missing", "the folder it is to go into is not there", where=str(path.parent), remedy="make it first")


def _write(frames: Iterable[pa.Table], path: Path) -> None:
    """The frames as one Parquet file under its name; a file that stands there by now is left as it is."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        writer = None
        try:
            for frame in frames:
                writer = writer or pq.ParquetWriter(temporary, frame.schema, compression="zstd", write_page_checksum=True)
                writer.write_table(frame)
        finally:
            if writer is not None:
                writer.close()
        publish(temporary, path.absolute())
    except OSError as error:
        what = os.strerror(error.errno) if error.errno else "the file could not be written"
        raise Refused("write_failed", what, where=str(path), remedy="free space or name another place") from error
    finally:
        temporary.unlink(missing_ok=True)


def _frame(
    snapshots: KeyIndex, rollups: Mapping[str, KeyIndex], keys: KeyRange, feature_set: FeatureSet, as_of: datetime
) -> pa.Table:
    accounts = snapshots.read(keys)
    ids = accounts[ACCOUNT_ID].combine_chunks()
    prepared = {table: prepare(ids, index.read(keys), feature_set, table) for table, index in rollups.items()}
    return make_frame(accounts, prepared, as_of, feature_set, population(accounts, as_of))


def _roll_up(
    files: tuple[InputFile, ...], table: str, feature_set: FeatureSet, held: Reference, scratch: Path
) -> Iterator[Output]:
    for work in plan_rollup(files, table, held):
        for events in read_events(work, feature_set):
            rolled = roll_up(events.table, feature_set, table)
            yield write_parquet([rolled], rolled.schema, scratch, "rollups", "rollup")
