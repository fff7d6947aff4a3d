"""Past flags for tests: what a test does not speak of is as of a flag that nobody decided."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, Final, NamedTuple

import pyarrow as pa

from batchscore.decide import memory
from batchscore.flag import FlagState
from batchscore.ports import MemoryRead, PastColumns, RunRow, StoreReader, Suppression
from batchscore.store.rows import from_microseconds, microseconds


class PastFlag(NamedTuple):
    """A row of `PastColumns`, with moments and the state as values."""

    account_id: int | str
    opened_at: datetime
    closed_at: datetime | None
    run_id: str
    as_of: datetime
    state: FlagState
    score: float
    reason_codes: tuple[str, ...]
    decided_at: datetime | None
    margin: float | None = None
    second_reviewer: bool = False


_MOMENTS: Final = ("opened_at", "closed_at", "as_of", "decided_at")


def past_flags(reader: StoreReader, queue: str, but_not_of: RunRow) -> Iterator[PastFlag]:
    """The flags of `past_columns`, one by one."""
    for page in reader.past_columns(queue, but_not_of=but_not_of):
        for row in zip(*page, strict=True):
            held = dict(zip(page._fields, row, strict=True))
            moments = {name: None if held[name] is None else from_microseconds(held[name]) for name in _MOMENTS}
            yield PastFlag(**(held | moments | {"state": FlagState(held["state"])}))


def remember(
    flags: Iterable[PastFlag], suppressions: Iterable[Suppression], id_type: pa.DataType, read_at: datetime | None = None
) -> pa.Table:
    """`memory.remember` of flags one by one; each is a page."""
    return memory.remember(map(columns, flags), suppressions, id_type, None if read_at is None else MemoryRead(read_at))


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
