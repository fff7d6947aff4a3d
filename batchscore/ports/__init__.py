"""The ports: what the story needs from observer, executor and store, and the rows that go over them.

Implementations live in `observe`, `executors` and `store`, do not know each other, and meet one behaviour suite for each port.

| module | port or rows |
|---|---|
| `observer` | hears what happens |
| `executor` | runs attempts somewhere, and is handed them by a worklist |
| `store` | writes the database of runs and flags, under the epoch of a run's driver |
| `store_reader` | reads it |
| `run_rows`, `flag_rows` | what they speak of |
"""

from __future__ import annotations

from batchscore.ports.executor import Executor, Worklist
from batchscore.ports.flag_rows import (
    FlagRow,
    HeldChange,
    HeldClaim,
    HeldFlag,
    HeldOpinion,
    LeftFlag,
    MemoryRead,
    PastColumns,
    ReleaseCount,
    Suppression,
    Undo,
)
from batchscore.ports.observer import Observer
from batchscore.ports.run_rows import FailureRow, HeldOutput, QuarantinedRow, RunRow, StageRow, SweepRow
from batchscore.ports.store import RunHandle, Store
from batchscore.ports.store_reader import StoreReader

__all__ = [
    "Executor",
    "FailureRow",
    "FlagRow",
    "HeldChange",
    "HeldClaim",
    "HeldFlag",
    "HeldOpinion",
    "HeldOutput",
    "LeftFlag",
    "MemoryRead",
    "Observer",
    "PastColumns",
    "QuarantinedRow",
    "ReleaseCount",
    "RunHandle",
    "RunRow",
    "StageRow",
    "Store",
    "StoreReader",
    "Suppression",
    "SweepRow",
    "Undo",
    "Worklist",
]
