"""Past flags for tests: what a test does not speak of is as of a flag that nobody decided."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import pyarrow as pa

from batchscore.decide import memory
from batchscore.flag import FlagState
from batchscore.ports import PastColumns, PastFlag, Suppression
from batchscore.store.rows import microseconds


def remember(
    flags: Iterable[PastFlag], suppressions: Iterable[Suppression], id_type: pa.DataType, read_at: datetime | None = None
) -> pa.Table:
    """`memory.remember` of flags one by one; each is a page."""
    return memory.remember(map(columns, flags), suppressions, id_type, read_at)


def columns(flag: PastFlag) -> PastColumns:
    held: dict[str, Any] = {
        name: [microseconds(value) if isinstance(value, datetime) else value] for name, value in flag._asdict().items()
    }
    return PastColumns(**held)


def past_flag(account_id: int | str, opened_at: datetime, closed_at: datetime | None, **known: Any) -> PastFlag:
    plain: dict[str, Any] = {
        "run_id": "r-00000000-1",
        "as_of": opened_at,
        "state": FlagState.OPEN,
        "score": 0.5,
        "reason_codes": (),
        "decided_at": None,
    }
    return PastFlag(account_id=account_id, opened_at=opened_at, closed_at=closed_at, **(plain | known))
