"""The training frame: features as of a date, or of (account, as-of) pairs, by the code that scores; with labels if there are any.

A model is trained before there is a bundle, so the spec's bundles are not looked at. The input is frozen and rolled up into
a scratch folder beside the frame, which is removed: memory follows a range of accounts, disk the input.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.drafts import write_parquet
from batchscore.errors import Refused
from batchscore.features.accounts import Accounts
from batchscore.features.feature_set import FeatureSet, read_feature_set
from batchscore.features.frame import make_frames, only, population
from batchscore.features.python import check_row_wise
from batchscore.features.rollup import roll_up
from batchscore.features.windows import prepare
from batchscore.files import in_words, publish, write_named_by_digest
from batchscore.key_index import KeyIndex
from batchscore.keys import ACCOUNT_ID, MOMENT, in_range, sort_by_key
from batchscore.plan import InputFile, KeyRange, Rollup
from batchscore.planner.agreement import refuse_mismatch
from batchscore.planner.inputs import read_inputs
from batchscore.receipt import Output
from batchscore.sources.freeze import read_events
from batchscore.sources.outside_a_run import freeze_outside_a_run, works_outside_a_run
from batchscore.spec import RunSpec
from batchscore.training.built import BuiltFrame
from batchscore.training.labels import LABEL, WEIGHT, Labels, read_labels, refuse_other_use
from batchscore.training.queue_labels import queue_labels
from batchscore.training.rows import AS_OF, read_rows

_RANGE_ROWS: Final = 50_000
Queue = Literal["queue"]


def build_frame(
    spec: RunSpec, asked: datetime | Path, path: Path, *, labels: Path | Queue | None = None, mature: timedelta | None = None
) -> BuiltFrame:
    """Write ``account_id``, every feature and, with ``labels``, ``label`` (int8, null where there is none) to ``path``.

    Asked for a moment, one row for each account that existed then, sorted by account id; asked for pairs, one for each that
    existed, with a column ``as_of``, sorted by both. Types are those of the frame that is scored: counts and sums int64, other
    values float64 with NaN for missing, account columns as they are. Labels with a probability also give ``weight``.

    Args:
        spec: Its as-ofs and bundles are left alone.
        asked: A whole number of the feature set's grain, or a file of ``account_id`` and ``as_of`` (Parquet or CSV).
        path: A new Parquet file. It appears whole or not at all.
        labels: Parquet or CSV, see `labels`; or ``queue``: what people decided in the spec's queue.
        mature: How long after an as-of a decision may be made, and when its labels are complete; see `labels`.

    Raises:
        Refused: ``file_exists``, ``write_failed``; what planning refuses of spec, feature set, inputs; what `read_labels` does.
        PartitionError: the input cannot be read.
    """
    feature_set = read_feature_set(Path(spec.feature_set))
    if labels is not None:
        refuse_other_use(feature_set, (LABEL, WEIGHT))
    pairs = read_pairs(asked, feature_set) if isinstance(asked, Path) else None
    as_ofs = (asked,) if isinstance(asked, datetime) else as_ofs_of(pairs)
    refuse_mismatch(spec.at(as_ofs, release="none"), feature_set, ())
    check_row_wise(feature_set)
    _refuse_place(path)
    inputs, _, _ = read_inputs(spec, feature_set)
    held = None
    if labels is not None:
        of_file = read_labels(labels, feature_set, mature) if isinstance(labels, Path) else None
        held = of_file or queue_labels(spec, feature_set, mature)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".batchscore-frame-") as scratch:
        source = _prepared(spec, feature_set, inputs, Path(scratch))
        counts = _Counts()
        frames = _at(source, as_ofs[0], held) if pairs is None else _at_pairs(source, pairs, held)
        _write(counts.counted(frames), path)
    built = BuiltFrame(
        path=str(path),
        as_ofs=as_ofs,
        feature_set=feature_set.feature_set,
        feature_set_digest=feature_set.digest,
        n_rows=counts.n_rows,
        n_features=len(feature_set.names),
        n_absent=None if pairs is None else len(pairs) - counts.n_rows,
    )
    if held is None:
        return built
    return built.model_copy(
        update={
            "n_labelled": counts.n_labelled,
            "n_positive": counts.n_positive,
            "n_unused": held.n_unused,
            "n_early": held.n_early,
            "n_immature": held.n_immature,
            "n_changed": held.n_changed,
        }
    )


def training_frames(
    spec: RunSpec, feature_set: FeatureSet, inputs: Mapping[str, tuple[InputFile, ...]], as_of: datetime, scratch: Path
) -> Iterator[pa.Table]:
    """``account_id`` and features of the accounts that existed at ``as_of``, in order, about `_RANGE_ROWS` accounts a table.

    ``inputs`` are those of `read_inputs`. Snapshots and rollups go into ``scratch`` and stay there.
    """
    return _at(_prepared(spec, feature_set, inputs, scratch), as_of, None)


def read_pairs(path: Path, feature_set: FeatureSet) -> pa.Table:
    """``account_id`` and ``as_of`` from Parquet or CSV, each pair once; other columns are left alone.

    Raises:
        Refused: what `read_rows` refuses; ``input_empty``; ``spec_invalid``: an as-of is missing.
    """
    pairs = read_rows(path, feature_set, [AS_OF])
    if not len(pairs):
        raise Refused("input_empty", "holds no pair", where=path.name, remedy="write account_id and as_of of each row to build")
    if pairs[AS_OF].null_count:
        raise Refused("spec_invalid", "an as_of is missing", where=path.name, remedy="write a date in each row")
    return pairs.group_by([ACCOUNT_ID, AS_OF], use_threads=False).aggregate([])


def as_ofs_of(pairs: pa.Table) -> tuple[datetime, ...]:
    """The as-ofs of pairs, each once, in order."""
    return tuple(sorted(moment.as_py().astimezone(UTC) for moment in pairs[AS_OF].unique()))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Input:
    """The frozen accounts and the rollups of a feature set, in a scratch folder."""

    feature_set: FeatureSet
    snapshots: KeyIndex
    rollups: Mapping[str, KeyIndex]

    def frames(
        self, keys: KeyRange, as_ofs: Sequence[datetime], among: pa.Array | None = None
    ) -> Iterator[tuple[datetime, pa.Table]]:
        """Each as-of (ascending) and the frame of the accounts of a key range (of the ids ``among`` it) that existed then."""
        accounts = Accounts.of(self.snapshots.read(keys, among=among), self.feature_set.accounts)
        span = as_ofs[0], as_ofs[-1]
        prepared = {
            table: prepare(accounts.ids, index.read(keys, among=among), self.feature_set, table, span)
            for table, index in self.rollups.items()
        }
        for as_of, frame in zip(as_ofs, make_frames(accounts, prepared, as_ofs, self.feature_set), strict=True):
            yield as_of, only(frame, population(accounts.at(as_of), as_of))


def _prepared(spec: RunSpec, feature_set: FeatureSet, inputs: Mapping[str, tuple[InputFile, ...]], scratch: Path) -> _Input:
    held = write_named_by_digest(feature_set.frozen_json().encode(), scratch, "json")
    kind = feature_set.account_id
    table = feature_set.accounts.table
    frozen = freeze_outside_a_run(spec.sources[table], inputs.get(table, ()), feature_set, held, scratch)
    works = partial(works_outside_a_run, spec.sources, inputs, feature_set=feature_set, held=held, scratch=scratch)
    return _Input(
        feature_set=feature_set,
        snapshots=KeyIndex.build(scratch, kind, frozen),
        rollups={
            events.table: KeyIndex.build(scratch, kind, _roll_up(works(events.table), feature_set, scratch))
            for events in feature_set.events
        },
    )


def _at(source: _Input, as_of: datetime, labels: Labels | None) -> Iterator[pa.Table]:
    for keys, _ in source.snapshots.cut(_RANGE_ROWS):
        for _, frame in source.frames(keys, [as_of]):
            yield frame if labels is None else labels.beside(frame, as_of)


def _at_pairs(source: _Input, pairs: pa.Table, labels: Labels | None) -> Iterator[pa.Table]:
    """The rows of the pairs, a key range at a time: of as many accounts fewer as there are as-ofs."""
    as_ofs = as_ofs_of(pairs)
    for keys, _ in source.snapshots.cut(max(1, _RANGE_ROWS // len(as_ofs))):
        inside = in_range(pairs[ACCOUNT_ID], keys.low, keys.high)
        here = pairs if inside is None else pairs.filter(inside)
        tables = []
        for as_of, frame in source.frames(keys, as_ofs, here[ACCOUNT_ID].unique()):
            asked = here[ACCOUNT_ID].filter(pc.equal(here[AS_OF], pa.scalar(as_of, MOMENT))).combine_chunks()
            rows = frame.filter(pc.is_in(frame[ACCOUNT_ID], value_set=asked))
            labelled = rows if labels is None else labels.beside(rows, as_of)
            tables.append(labelled.add_column(1, AS_OF, pa.repeat(pa.scalar(as_of, MOMENT), len(rows))))
        yield sort_by_key(pa.concat_tables(tables), AS_OF)


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
        raise Refused("write_failed", in_words(error), where=str(path), remedy="free space or name another place") from error
    finally:
        temporary.unlink(missing_ok=True)


def _roll_up(works: Iterable[Rollup], feature_set: FeatureSet, scratch: Path) -> Iterator[Output]:
    for work in works:
        for events in read_events(work, feature_set):
            rolled = roll_up(events.table, feature_set, work.table)
            yield write_parquet([rolled], rolled.schema, scratch, "rollups", "rollup")
