"""How right a run's flags were, by the truth: beside the base rate, and apart for accounts the model cannot have learnt by heart.

A run of the past can always be flattered by its training set: an account whose label the model was shown is no test of it.
So flags of accounts that came after the training date are counted on their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.demo.truth import Truth
from batchscore.files import Role, verified
from batchscore.keys import ACCOUNT_ID
from batchscore.layout import decided_rows
from batchscore.plan import Stage
from batchscore.ports import RunRow, StoreReader


@dataclass(frozen=True, kw_only=True, slots=True)
class AbusiveShare:
    """``n_abusive`` of ``n`` accounts."""

    n: int
    n_abusive: int

    def __str__(self) -> str:
        return f"{self.n_abusive / self.n:.0%}" if self.n else "–"


@dataclass(frozen=True, kw_only=True, slots=True)
class DatePrecision:
    """One as-of: the accounts scored, the accounts flagged, and those of both that came after the training date."""

    as_of: datetime
    scored: AbusiveShare
    flagged: AbusiveShare
    new_scored: AbusiveShare
    new_flagged: AbusiveShare
    released: bool


def measure(row: RunRow, reader: StoreReader, truth: Truth, trained_as_of: datetime) -> Iterator[DatePrecision]:
    """The precision of a finished run's flags at each of its as-ofs; one as-of is held at a time."""
    assert row.decision is not None, "a finished run has decided"
    decided = decided_rows(row.decision)
    came_after = pc.field("created_at") >= pa.scalar(trained_as_of, decided["as_of"].type)
    new = _ids(row, reader, Stage.FREEZE, "snapshot", came_after, decided.schema).combine_chunks()
    for as_of in row.plan.spec.as_ofs():
        at = pc.field("as_of") == pa.scalar(as_of, decided["as_of"].type)
        flags = decided.filter(at)
        scored = _ids(row, reader, Stage.SCORE, "scores", at, decided.schema)
        flagged = flags[ACCOUNT_ID]
        yield DatePrecision(
            as_of=as_of,
            scored=_share(scored, truth, as_of),
            flagged=_share(flagged, truth, as_of),
            new_scored=_share(_among(scored, new), truth, as_of),
            new_flagged=_share(_among(flagged, new), truth, as_of),
            released=bool(pc.any(flags["release"]).as_py()),
        )


def _ids(row: RunRow, reader: StoreReader, stage: Stage, role: Role, where: pc.Expression, schema: pa.Schema) -> pa.ChunkedArray:
    """Account ids in what a stage of the run wrote, where ``where`` holds; each file is checked against its receipt first."""
    store = Path(row.plan.spec.store)
    outputs = [output for receipt in reader.receipts(row.run_id, stage) for output in receipt.outputs if output.role == role]
    tables = (
        pq.read_table(verified(str(store / output.path), output.sha256), columns=[ACCOUNT_ID], filters=where)
        for output in outputs
    )
    return pa.concat_tables([schema.empty_table().select([ACCOUNT_ID]), *tables])[ACCOUNT_ID]


def _among(ids: pa.ChunkedArray, chosen: pa.Array) -> pa.ChunkedArray:
    return ids.filter(pc.is_in(ids, value_set=chosen))


def _share(ids: pa.ChunkedArray, truth: Truth, as_of: datetime) -> AbusiveShare:
    return AbusiveShare(n=len(ids), n_abusive=int(pc.sum(truth.is_abusive(ids, as_of)).as_py() or 0))
