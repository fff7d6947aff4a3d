"""Admits a run's input, or says why not: reads the day counts that its rollups left, and asks the gate. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow.parquet as pq

from batchscore.features.day_counts import added
from batchscore.features.input_gate import (
    DayCounts,
    JudgedDays,
    days_needed,
    is_silent,
    judge,
    silence_told,
)
from batchscore.files import verified
from batchscore.hold import Finding
from batchscore.layout import Definitions, rollups_of
from batchscore.plan import Partition, Plan
from batchscore.receipt import Output, Receipt


@dataclass(frozen=True, kw_only=True, slots=True)
class Admission:
    """What the input looks like. ``warnings``: of tables that ended long before the last as-of, gated or not."""

    findings: tuple[Finding, ...]
    n_days: int
    n_new: int
    warnings: tuple[str, ...]


def judge_input(plan: Plan, definitions: Definitions, laid_out: Iterable[Partition], receipts: Iterable[Receipt]) -> Admission:
    """Judge the days that the plan's as-ofs need of every gated table. ``laid_out``, ``receipts``: of the rollup stage.

    Raises:
        Refused: ``spec_invalid``: a gate counts by a column of too many values.
        PartitionError: a file of counts is gone or damaged.
    """
    outputs = rollups_of(laid_out, receipts, "days")
    feature_set, as_ofs = definitions.feature_set, plan.spec.as_ofs()
    judged: list[JudgedDays] = []
    warnings: list[str] = []
    for events in feature_set.events:
        table = events.table
        counts = read_counts(definitions, table, outputs.get(table, ()))
        if is_silent(last := counts.last(as_ofs[-1]), as_ofs[-1], feature_set, table):
            warnings.append(silence_told(table, last, as_ofs[-1]))
        if table in plan.spec.gate:
            needed = days_needed(as_ofs, feature_set, table)
            judged.append(judge(table, plan.spec.gate[table], counts, needed, plan.incomplete.get(table, ())))
    return Admission(
        findings=tuple(finding for one in judged for finding in one.findings),
        n_days=sum(one.n_days for one in judged),
        n_new=sum(one.n_new for one in judged),
        warnings=tuple(warnings),
    )


def read_counts(definitions: Definitions, table: str, outputs: Sequence[Output]) -> DayCounts:
    """The day counts of one table, of all its rollups together; raises as `judge_input`."""
    paths = [verified(str(definitions.store / output.path), output.sha256) for output in outputs]
    held = added((pq.read_table(path) for path in paths), where=f"gate of {table}")
    return DayCounts(held, definitions.feature_set.grain)
