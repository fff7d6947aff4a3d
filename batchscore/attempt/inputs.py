"""Attempts that bring in what others read: accounts into snapshots, events into rollups, rollups into one file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from batchscore.attempt.outcome import Outcome
from batchscore.drafts import Drafts
from batchscore.features.day_counts import DAYS_SCHEMA, added, count_events, count_rollup
from batchscore.features.feature_set import FeatureSet, open_feature_set
from batchscore.features.rollup import merge, roll_up
from batchscore.key_index import KeyIndex
from batchscore.plan import FreezeEvents, FreezeParquet, FreezeSql, Merge, Rollup, Task
from batchscore.receipt import HELD_BACK
from batchscore.sources.brake import Brake
from batchscore.sources.canonical import Rows
from batchscore.sources.freeze import Frozen, live_source, read_events, write_rejects
from batchscore.sources.segment import SEGMENT

MERGED_ROWS: Final = 250_000  # of rollups, brought together at once


Freeze = Callable[[Any, Drafts, FeatureSet], Frozen]


def freeze_as(freeze: Freeze, work: FreezeParquet | FreezeSql | FreezeEvents, outcome: Outcome, drafts: Drafts) -> None:
    """What ``freeze`` makes of the work, into the outcome."""
    with outcome.timed("freeze"):
        counts, keys = freeze(work, drafts, open_feature_set(work.feature_set))
    outcome.counts |= counts
    outcome.keys |= keys


def freeze_gently(
    task: Task, freeze: Callable[..., Frozen], work: FreezeSql | FreezeEvents, outcome: Outcome, drafts: Drafts
) -> None:
    """The same of a live table, under its brake."""
    brake = Brake(live_source(work, task.gentle), just_looked=True)  # by the driver, which handed it out
    freeze_as(partial(freeze, brake=brake), work, outcome, drafts)
    outcome.worst_lag_s = brake.worst_lag_s
    if brake.held_s:
        outcome.seconds[HELD_BACK] = round(brake.held_s, 4)
        outcome.seconds["freeze"] = round(outcome.seconds["freeze"] - outcome.seconds[HELD_BACK], 4)


def roll_up_events(work: Rollup, outcome: Outcome, drafts: Drafts) -> None:
    """Each portion of events becomes a rollup of its own: they merge exactly when read. Their days are counted together."""
    feature_set = open_feature_set(work.feature_set)
    rejects: list[pa.Table] = []
    days: list[pa.Table] = []
    batches = read_events(work, feature_set)
    while (events := _read_next(batches, outcome)) is not None:
        with outcome.timed("rollup"):
            rolled = roll_up(events.table, feature_set, work.table)
            grain = feature_set.grain
            days.append(count_rollup(rolled, grain) if work.by is None else count_events(events.table, grain, SEGMENT))
        with outcome.timed("write"):
            drafts.write_parquet([rolled], rolled.schema, "rollup")
        outcome.count("events", len(events.table))
        rejects.append(events.rejects)
        del events, rolled  # before the next portion is gathered
        pa.default_memory_pool().release_unused()  # else what the allocator keeps for later grows with the input
    counts = added(days, where=f"gate of {work.table}")
    drafts.write_parquet([counts], DAYS_SCHEMA, "days")
    write_rejects(rejects, drafts, outcome.counts)


def _read_next(batches: Iterator[Rows], outcome: Outcome) -> Rows | None:
    with outcome.timed("read"):
        return next(batches, None)


def merge_rollups(task: Task, work: Merge, outcome: Outcome, drafts: Drafts) -> None:
    """Rollups brought together a key range at a time, so memory does not follow their size; one file, in key order."""
    feature_set = open_feature_set(work.feature_set)
    index = KeyIndex.build(Path(task.store), feature_set.account_id, work.rollups)

    def merged() -> Iterator[pa.Table]:
        for keys, _ in index.cut(MERGED_ROWS):
            yield merge([index.read(keys)], feature_set, work.table)

    with outcome.timed("merge"):
        drafts.write_parquet(merged(), index.schema, "rollup")
    outcome.count("rows", index.n_rows)
