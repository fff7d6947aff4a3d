"""What a worker reads for one partition of an Explorer's frames: a key range of a run's own files, verified, as pandas.

Account ids stay exact: they are the index, uint64 or text. Other integers and truths keep their nulls (Arrow-backed), so none
goes through a float; measured numbers are float64 with NaN for missing, as the model sees them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pandas.api.extensions import ExtensionDtype
from pyarrow.fs import LocalFileSystem

from batchscore.attempt.explaining import reasons_schema
from batchscore.explore.filters import Filters, columns_of, expression_of
from batchscore.features.feature_set import open_feature_set
from batchscore.files import verified
from batchscore.key_index import open_index
from batchscore.keys import ACCOUNT_ID, ID_TYPES, MOMENT, hash64, sort_by_key
from batchscore.layout import decided_rows
from batchscore.models.contract import conform
from batchscore.models.loading import load_scorer
from batchscore.operations.remade import features_again
from batchscore.plan import InputFile, Reference, Rollup, Score
from batchscore.receipt import Output
from batchscore.sources.freeze import read_events

_HASHES: Final = 2.0**64


@dataclass(frozen=True, slots=True)
class Files:
    """Files of the store that hold one key range; none where the range was set aside."""

    store: str
    outputs: tuple[Output, ...]


def read_accounts(work: Score, store: str, columns: list[str] | None = None, filters: Filters | None = None) -> pd.DataFrame:
    """The frozen accounts of the range of ``work``, of a history all rows of each; only ``columns`` are read.

    ``filters`` pass over row groups whose footers say that no row of theirs is wanted.
    """
    kind = open_feature_set(work.feature_set).account_id
    index = open_index(store, kind, work.snapshots)
    names = index.schema.names if columns is None else [ACCOUNT_ID, *columns]
    wanted = expression_of(filters, ID_TYPES[kind])
    if wanted is None:
        return to_pandas(index.read(work.keys, columns=names))
    for bound, is_low in ((work.keys.low, True), (work.keys.high, False)):
        if bound is not None:
            key, edge = pc.field(ACCOUNT_ID), pa.scalar(bound, ID_TYPES[kind])
            wanted = wanted & ((key >= edge) if is_low else (key < edge))
    schema = pa.schema([index.schema.field(name) for name in names])
    tables = [
        ds.ParquetFileFormat()
        .make_fragment(str(verified(f"{store}/{path}", sha256)), LocalFileSystem(), row_groups=sorted(groups))
        .to_table(columns=names, filter=wanted, use_threads=False)
        .cast(schema)
        for (path, sha256), groups in sorted(index.files(work.keys).items())
    ]
    return to_pandas(sort_by_key(pa.concat_tables([schema.empty_table(), *tables])))


def read_features(
    work: Score, store: str, as_of: datetime, columns: list[str] | None = None, fraction: float = 1.0
) -> pd.DataFrame:
    """The features at ``as_of`` of the accounts of a range that existed then, by the code that scores."""
    frame = _frame(work, store, as_of, _some(work, store, fraction))
    return to_pandas(frame if columns is None else frame.select([ACCOUNT_ID, *columns]))


def score_again(work: Score, store: str, as_of: datetime, bundle: Reference, fraction: float = 1.0) -> pd.DataFrame:
    """Margin and score that ``bundle`` gives the accounts of a range at ``as_of``; rows it cannot score are NaN."""
    frame = _frame(work, store, as_of, _some(work, store, fraction))
    scorer = load_scorer(bundle)
    conformed = conform(frame, scorer.names, scorer.manifest.category_sets)
    margin = scorer.margin(conformed)
    return to_pandas(pa.table({ACCOUNT_ID: frame[ACCOUNT_ID], "margin": margin, "score": scorer.score_of(margin)}))


def read_files(
    files: Files,
    schema: pa.Schema,
    as_of: datetime | None = None,
    columns: list[str] | None = None,
    filters: Filters | None = None,
) -> pd.DataFrame:
    """Rows of a stage's files, sorted by account id then as-of; of one as-of, when it is given, and of ``filters``."""
    names = schema.names if columns is None else [ACCOUNT_ID, *columns]
    wanted = expression_of(filters, schema.field(ACCOUNT_ID).type)
    if as_of is not None:
        of_then = pc.field("as_of") == pa.scalar(as_of, MOMENT)
        wanted = of_then if wanted is None else wanted & of_then
    tables = [
        pq.read_table(verified(f"{files.store}/{output.path}", output.sha256), columns=names, filters=wanted, use_threads=False)
        for output in files.outputs
    ]
    picked = pa.schema([schema.field(name) for name in names])
    table = pa.concat_tables([picked.empty_table(), *(table.replace_schema_metadata(None).cast(picked) for table in tables)])
    order = [(ACCOUNT_ID, "ascending"), *([("as_of", "ascending")] if "as_of" in names else [])]
    return to_pandas(table.sort_by(order))


def read_events_of(
    file: InputFile, table: str, feature_set: Reference, columns: list[str] | None = None, filters: Filters | None = None
) -> pd.DataFrame:
    """The events of one input file, with ``event_at`` and ``known_at`` in UTC, in the order in which they stand there.

    Of the file only key, times and what ``columns`` and ``filters`` ask for is read; rows are let go of a batch at a time.
    """
    held = open_feature_set(feature_set)
    work = Rollup(table=table, feature_set=feature_set, files=(file,))
    needed = None if columns is None else [*columns, *columns_of(filters)]
    wanted = expression_of(filters, ID_TYPES[held.account_id])
    batches = (rows.table for rows in read_events(work, held, needed))
    kept = [rows if wanted is None else rows.filter(wanted) for rows in batches]
    read = pa.concat_tables(kept, promote_options="permissive")
    return to_pandas(read if columns is None else read.select([ACCOUNT_ID, *columns]))


def read_frozen_events(files: Files, columns: list[str] | None = None, filters: Filters | None = None) -> pd.DataFrame:
    """The events that a freeze left of a range of a live table, as `read_events_of`."""
    names = None if columns is None else [ACCOUNT_ID, *columns]
    (output,) = files.outputs
    path = verified(f"{files.store}/{output.path}", output.sha256)
    wanted = expression_of(filters, pq.read_schema(path).field(ACCOUNT_ID).type)
    held = pq.read_table(path, columns=names, filters=wanted, use_threads=False)
    return to_pandas(held.replace_schema_metadata(None))


def read_decision(decision: Reference, columns: list[str] | None = None, filters: Filters | None = None) -> pd.DataFrame:
    """The decision's rows, by as-of and rank."""
    table = decided_rows(decision)
    wanted = expression_of(filters, table.schema.field(ACCOUNT_ID).type)
    table = (table if wanted is None else table.filter(wanted)).sort_by([("as_of", "ascending"), ("rank", "ascending")])
    return to_pandas(table if columns is None else table.select([ACCOUNT_ID, *columns]))


def read_flags(files: Files, decision: Reference, columns: list[str] | None = None) -> pd.DataFrame:
    """The decision's rows that have reasons, with these; the newest as-of first, then by rank."""
    explained = [pq.read_table(verified(f"{files.store}/{output.path}", output.sha256)) for output in files.outputs]
    decided = decided_rows(decision).replace_schema_metadata(None)
    reasons = pa.concat_tables([reasons_schema(decided.schema.field(ACCOUNT_ID).type).empty_table(), *explained])
    joined = decided.join(reasons.replace_schema_metadata(None), keys=[ACCOUNT_ID, "as_of"], join_type="inner")
    ordered = joined.sort_by([("as_of", "descending"), ("rank", "ascending")])
    names = [*decided.column_names, *(name for name in reasons.column_names if name not in decided.column_names)]
    return to_pandas(ordered.select(names if columns is None else [ACCOUNT_ID, *columns]))


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """A table with the account ids as its index; see the module for types."""
    frame: pd.DataFrame = table.to_pandas(types_mapper=_dtype)
    return frame.set_index(ACCOUNT_ID)


def _dtype(kind: pa.DataType) -> ExtensionDtype | None:
    if pa.types.is_string(kind):
        return pd.StringDtype("pyarrow")  # as Dask would make of it anyway
    if pa.types.is_uint64(kind) or pa.types.is_timestamp(kind):
        return None  # an id, which is never null, and a moment: pandas has exact types of its own
    exact = pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_decimal(kind)
    return pd.ArrowDtype(kind) if exact else None


def features_of(work: Score, store: str, as_of: datetime, among: pa.Array) -> pd.DataFrame:
    """The features of a few accounts of a range."""
    return to_pandas(_frame(work, store, as_of, among))


def _frame(work: Score, store: str, as_of: datetime, among: pa.Array | None) -> pa.Table:
    return features_again(work, store, as_of, among).frame


def _some(work: Score, store: str, fraction: float) -> pa.Array | None:
    """About ``fraction`` of the ids, chosen by their hash: always the same accounts, in any run. None for all."""
    if fraction >= 1:
        return None
    snapshots = open_index(store, open_feature_set(work.feature_set).account_id, work.snapshots)
    ids = snapshots.read(work.keys, columns=[ACCOUNT_ID])[ACCOUNT_ID].combine_chunks()
    return ids.filter(pa.array(hash64(ids) < np.uint64(fraction * _HASHES)))
