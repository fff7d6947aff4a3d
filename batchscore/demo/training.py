"""Trains the demo's model on the past: a run's own sources, rollups and frame as of one date, labelled by the truth of then."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from batchscore.demo.truth import Truth
from batchscore.features.feature_set import FeatureSet, read_feature_set
from batchscore.features.frame import make_frame, population
from batchscore.features.rollup import roll_up
from batchscore.features.windows import prepare
from batchscore.files import write_named_by_digest, write_parquet
from batchscore.key_index import KeyIndex
from batchscore.keys import ACCOUNT_ID
from batchscore.models.bundle import ReasonTemplate
from batchscore.models.contract import conform
from batchscore.models.pack import About, pack_bundle
from batchscore.models.training import train
from batchscore.plan import FreezeSql, KeyRange, Reference
from batchscore.receipt import Output
from batchscore.sources.freeze import freeze_parquet, freeze_sql, plan_freeze, plan_rollup, read_events
from batchscore.sources.parquet import list_inputs
from batchscore.sources.sql import largest_key
from batchscore.spec import RunSpec

N_TREES: Final = 120
DEPTH: Final = 4
N_GOLDEN: Final = 64
MAX_TRAINING_ROWS: Final = 200_000  # of a large world the first key ranges are enough
_RANGE_ROWS: Final = 50_000


def train_bundle(spec: RunSpec, truth: Truth, as_of: datetime) -> None:
    """Train on the accounts that existed at ``as_of``, labelled by what they had shown by then, and pack the spec's bundle."""
    feature_set = read_feature_set(Path(spec.feature_set))
    with tempfile.TemporaryDirectory() as scratch:
        frame = training_frame(spec, feature_set, as_of, Path(scratch))
    labels = truth.is_abusive(frame[ACCOUNT_ID], as_of).to_numpy().astype(np.int32)
    matrix = conform(frame, feature_set.names).matrix
    booster = train(matrix, labels, feature_set.names, n_trees=N_TREES, depth=DEPTH)
    rows = frame.take(pa.array(np.linspace(0, len(frame) - 1, min(N_GOLDEN, len(frame))).astype(np.int64)))
    reasons = {name: ReasonTemplate(code=name, sentence=feature_set.describe(name)) for name in feature_set.names}
    about = About(
        name=feature_set.feature_set,
        reasons=reasons,
        trained_as_of=as_of,
        notes={"base rate": f"{labels.mean():.3f}", "accounts": str(len(labels))},
    )
    pack_bundle(
        booster,
        Path(spec.bundles[0]),
        features=feature_set.names,
        feature_set_digest=feature_set.digest,
        golden=rows.drop_columns(ACCOUNT_ID),
        about=about,
    )


def training_frame(spec: RunSpec, feature_set: FeatureSet, as_of: datetime, scratch: Path) -> pa.Table:
    """``account_id`` and features of the accounts that existed at ``as_of``, through the code that scores."""
    held = write_named_by_digest(feature_set.frozen_json().encode(), scratch, "json")
    kind = feature_set.account_id
    snapshots = KeyIndex.build(scratch, kind, _freeze(spec, feature_set, held, scratch))
    rollups = {
        events.table: KeyIndex.build(scratch, kind, _roll_up(spec, feature_set, events.table, held, scratch))
        for events in feature_set.events
    }
    frames: list[pa.Table] = []
    for keys, _ in snapshots.cut(_RANGE_ROWS):
        frames.append(_frame(snapshots, rollups, keys, feature_set, as_of))
        if sum(len(frame) for frame in frames) >= MAX_TRAINING_ROWS:
            break
    return pa.concat_tables(frames)


def _frame(
    snapshots: KeyIndex, rollups: dict[str, KeyIndex], keys: KeyRange, feature_set: FeatureSet, as_of: datetime
) -> pa.Table:
    accounts = snapshots.read(keys)
    ids = accounts[ACCOUNT_ID].combine_chunks()
    prepared = {table: prepare(ids, index.read(keys), feature_set, table) for table, index in rollups.items()}
    return make_frame(accounts, prepared, as_of, feature_set, population(accounts, as_of))


def _freeze(spec: RunSpec, feature_set: FeatureSet, held: Reference, scratch: Path) -> Iterator[Output]:
    accounts = feature_set.accounts
    source = spec.sources[accounts.table]
    if source.sql is not None:
        high = largest_key(source.sql, accounts, feature_set.account_id)
        live = FreezeSql(
            table=accounts.table,
            feature_set=held,
            url=source.sql.url,
            sql_table=source.sql.table,
            high=high,
            opened_for="training",
        )
        yield from freeze_sql(live, scratch, "snapshots", feature_set)[0]
    elif source.parquet is not None:
        for work in plan_freeze(list_inputs(Path(source.parquet.path))[0], accounts.table, held):
            yield from freeze_parquet(work, scratch, "snapshots", feature_set)[0]


def _roll_up(spec: RunSpec, feature_set: FeatureSet, table: str, held: Reference, scratch: Path) -> Iterator[Output]:
    source = spec.sources[table].parquet
    assert source is not None, "events are read from Parquet"
    for work in plan_rollup(list_inputs(Path(source.path))[0], table, held):
        for events in read_events(work, feature_set):
            rolled = roll_up(events.table, feature_set, table)
            yield write_parquet([rolled], rolled.schema, scratch, "rollups", "rollup")
