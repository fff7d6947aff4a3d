"""Decides once per run, and freezes what it saw and what it chose: the memory and the decision, each a file named by digest.

The choosing itself is pure and lives in `decide`. Resume, release, undo, verify and explain read these two files; none of
them decides again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.decide.memory import remember
from batchscore.decide.top import decide_dates
from batchscore.failpoints import Point, reach
from batchscore.files import parquet_bytes, verified, write_named_by_digest
from batchscore.flag import REASONS, Flag, Reason
from batchscore.keys import ACCOUNT_ID, ID_TYPES, sort_by_key
from batchscore.layout import Definitions
from batchscore.plan import Plan, Reference
from batchscore.ports import PastFlag, RunRow
from batchscore.receipt import Output, Receipt

MOMENT: Final = pa.timestamp("us", tz="UTC")
_SCORES: Final = [ACCOUNT_ID, "score", "margin"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """Where the decision and the memory lie, and how many flags it holds.

    Columns of the decision: account_id, as_of, rank, score, margin, release (bool: this as-of goes to the reviewers).
    """

    file: Reference
    memory: Reference
    n_selected: int
    n_to_release: int


def make_decision(
    plan: Plan, definitions: Definitions, scores: Mapping[datetime, Sequence[Output]], past_flags: Iterable[PastFlag]
) -> Decision:
    """Decide every as-of of the run and write both files. ``scores``: as-of → the files that hold its scores."""
    memory = remember(past_flags, ID_TYPES[definitions.feature_set.account_id])
    decided = decided_by(plan, definitions, scores, memory)
    folder = definitions.store / "decisions"
    file = write_named_by_digest(parquet_bytes(decided), folder, "parquet")
    reach(Point.DECISION_WRITTEN)
    remembered = write_named_by_digest(parquet_bytes(memory), folder, "parquet")
    reach(Point.DECISION_UNRECORDED)
    return Decision(
        file=file,
        memory=remembered,
        n_selected=len(decided),
        n_to_release=int(pc.sum(decided["release"]).as_py() or 0),
    )


def decided_by(plan: Plan, definitions: Definitions, scores: Mapping[datetime, Sequence[Output]], memory: pa.Table) -> pa.Table:
    """What the policy selects of those scores, given that memory: a decision's table. Writes nothing."""
    spec = plan.spec
    latest = spec.as_ofs()[-1] if spec.release == "latest" else None
    selected = [
        table.append_column("release", pa.repeat(as_of == latest, len(table)))
        for as_of, table in zip(
            spec.as_ofs(),
            decide_dates(
                lambda as_of: read_scores(definitions.store, scores.get(as_of, ()), as_of),
                spec.as_ofs(),
                spec.policy,
                memory,
                release=spec.release,
            ),
            strict=True,
        )
    ]
    return pa.concat_tables(selected).combine_chunks()


def flags_to_release(row: RunRow, definitions: Definitions, explained: Iterable[Receipt]) -> Iterator[Flag]:
    """The flags of the released as-of in key order, with their reasons; nothing when the run releases nothing."""
    assert row.decision is not None, "a run is released after it has decided"
    decided = pq.read_table(verified(row.decision.path, row.decision.sha256))
    decided = sort_by_key(decided.filter(decided["release"]))
    reasons = _reasons(definitions, explained, decided)
    for record in decided.to_pylist():
        yield Flag(
            queue=row.plan.spec.policy.queue,
            account_id=record[ACCOUNT_ID],
            run_id=row.run_id,
            as_of=record["as_of"],
            rank=record["rank"],
            score=float(record["score"]),
            margin=float(record["margin"]),
            reasons=reasons[record[ACCOUNT_ID]],
            bundle_digest=definitions.bundle.sha256,
        )


def read_scores(store: Path, files: Iterable[Output], as_of: datetime) -> Iterator[pa.Table]:
    """The scores of one as-of, a file at a time; the as-of's rows lie together, so other row groups are not read."""
    for output in files:
        path = verified(str(store / output.path), output.sha256)
        table = pq.read_table(path, columns=_SCORES, filters=[("as_of", "=", pa.scalar(as_of, MOMENT))], use_threads=False)
        if len(table):
            yield table.replace_schema_metadata(None)  # a file's histograms are its own: equal decisions are equal bytes


def _reasons(definitions: Definitions, explained: Iterable[Receipt], decided: pa.Table) -> dict[Any, tuple[Reason, ...]]:
    """Account id → its reasons at the released as-of."""
    if not len(decided):
        return {}
    as_of = decided["as_of"][0]
    found: dict[Any, tuple[Reason, ...]] = {}
    for receipt in explained:
        for output in receipt.outputs:
            table = pq.read_table(verified(str(definitions.store / output.path), output.sha256), filters=[("as_of", "=", as_of)])
            for record in table.to_pylist():
                found[record[ACCOUNT_ID]] = REASONS.validate_json(record["reasons"])
    return found
