"""Compares two runs of a store: what went in, what came out, how long it took. Reads only."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from batchscore.keys import ACCOUNT_ID
from batchscore.layout import decided_rows
from batchscore.operations.report import Gaps, report_of
from batchscore.ports import FlagRow, RunRow, StoreReader
from batchscore.report.difference import MAX_SHOWN, RunDifference, flag_pairs, pinned_parts, score_pairs, stage_pairs

_ALL_FLAGS: Final = 10_000_000


def difference(reader: StoreReader, run_a: str, run_b: str, store: str) -> RunDifference:
    """From run A to run B.

    Raises:
        Refused: ``run_unknown`` or ``run_id_invalid``.
    """
    rows = [reader.run(run_id) for run_id in (run_a, run_b)]
    a, b = (report_of(reader, row.run_id, store) for row in rows)
    gaps = Gaps()
    decided = [_decision(row, gaps) for row in rows]
    new, dropped = _in_queue_of_one(reader, rows, decided)
    return RunDifference(
        a=a.run,
        b=b.run,
        pinned=pinned_parts(rows[0].plan, rows[1].plan),
        stages=stage_pairs(a.stages, b.stages),
        scores=score_pairs(*({held.as_of: held.counts for held in report.histograms} for report in (a, b))),
        flags=tuple(flag_pairs(*decided)) if decided[0] is not None and decided[1] is not None else (),
        new_in_queue=new,
        dropped_in_queue=dropped,
        gaps=(*a.gaps, *b.gaps, *gaps),
    )


def _decision(row: RunRow, gaps: Gaps) -> pa.Table | None:
    """None before decide has run, and when the file is gone."""
    if row.decision is None:
        return None
    with gaps.around(f"decision of {row.run_id}"):
        columns = [ACCOUNT_ID, "as_of", "rank"]
        return decided_rows(row.decision).select(columns)
    return None


def _in_queue_of_one(
    reader: StoreReader, rows: list[RunRow], decided: list[pa.Table | None]
) -> tuple[tuple[FlagRow, ...], tuple[FlagRow, ...]]:
    """Flags in the queue now that only run B, and that only run A, selected."""
    queues = {row.plan.spec.policy.queue for row in rows}
    shown = [flag for queue in sorted(queues) for flag in reader.queue(queue, limit=_ALL_FLAGS)]

    def only_of(mine: int, other: int) -> tuple[FlagRow, ...]:
        table = decided[other]
        if table is None:  # nobody knows what the other one selected
            return ()
        selected = set(table[ACCOUNT_ID].to_pylist())
        of_run = (row for row in shown if row.flag.run_id == rows[mine].run_id and row.flag.account_id not in selected)
        return tuple(row for row, _ in zip(of_run, range(MAX_SHOWN), strict=False))

    return only_of(1, 0), only_of(0, 1)
