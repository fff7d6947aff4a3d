"""Answers of the Explorer as values: one account whole, and what another policy would have selected. Tables in, frames out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.desk import Reviewed
from batchscore.keys import ACCOUNT_ID, MOMENT
from batchscore.policy import Policy
from batchscore.ports import FlagRow

_DECIDED: Final = ("as_of", "queue", "run_id", "disposition", "by", "decided_at", "evidence", "why")
_FLAG: Final = ("as_of", "queue", "state", "rank", "score", "run_id", "reasons", "released_at")


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What another policy would have selected from the same scores and memory.

    ``flags``: as_of, rank, score, margin by account id. ``changes``: for each as-of how many flags both policies select
    (``same``), only the other one (``new``), and only the run's (``dropped``).
    """

    policy: Policy
    flags: pd.DataFrame
    changes: pd.DataFrame


@dataclass(frozen=True, slots=True)
class Account:
    """All a run and its queues know of one account: frames by as-of, its flags of every run with states, what people decided.

    ``dispositions``: one row for each decision, by the as-of of the flag: queue, run_id, disposition, by, decided_at, evidence
    (the version they saw), why.
    """

    account_id: int | str
    scores: pd.DataFrame
    features: pd.DataFrame
    flags: pd.DataFrame
    dispositions: pd.DataFrame


def changes_of(as_ofs: Sequence[datetime], before: pa.Table, after: pa.Table) -> pd.DataFrame:
    """Flags that both, only the other, and only the run's own policy select, by as-of."""
    rows: list[dict[str, object]] = []
    for as_of in as_ofs:
        moment = pa.scalar(as_of, MOMENT)
        ours, theirs = (set(table.filter(pc.equal(table["as_of"], moment))[ACCOUNT_ID].to_pylist()) for table in (before, after))
        rows.append({"as_of": as_of, "same": len(ours & theirs), "new": len(theirs - ours), "dropped": len(ours - theirs)})
    return pd.DataFrame(rows).set_index("as_of")


def flags_frame(flags: Sequence[FlagRow]) -> pd.DataFrame:
    """One row for each flag; reasons as sentences."""
    rows = [
        {
            **row.flag.model_dump(include={"as_of", "queue", "rank", "score", "run_id"}),
            "state": row.state,
            "reasons": tuple(reason.sentence for reason in row.flag.reasons),
            "released_at": row.released_at,
        }
        for row in flags
    ]
    return pd.DataFrame(rows, columns=_FLAG).set_index("as_of")


def dispositions_frame(flags: Iterable[Reviewed]) -> pd.DataFrame:
    """One row for each decision of a person, in order."""
    rows = [
        {
            **reviewed.flag.model_dump(include={"as_of", "queue", "run_id"}),
            **decided.model_dump(include={"by", "decided_at", "evidence", "why"}),
            "disposition": decided.disposition.value,
        }
        for reviewed in flags
        for decided in reviewed.decided
    ]
    return pd.DataFrame(rows, columns=_DECIDED).set_index("as_of")
