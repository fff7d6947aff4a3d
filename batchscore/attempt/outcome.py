"""What an attempt finds out while it goes on, for its receipt."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa

from batchscore.digest import KeyDigest
from batchscore.keys import key_digest
from batchscore.receipt import Output
from batchscore.report.proof import key_name


@dataclass(slots=True)
class Outcome:
    """What a receipt is made of, gathered while the attempt goes on."""

    outputs: tuple[Output, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    keys: dict[str, KeyDigest] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    scorer: str = ""
    alerts: list[str] = field(default_factory=list)
    worst_lag_s: float | None = None

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the block's seconds to ``part``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] = round(self.seconds.get(part, 0.0) + time.perf_counter() - start, 4)

    def count(self, name: str, n: int) -> None:
        """Add ``n`` under ``name``; nothing is kept of zeros."""
        if n:
            self.counts[name] = self.counts.get(name, 0) + n

    def add_keys(self, part: str, as_of: datetime, ids: pa.Array | pa.ChunkedArray) -> None:
        """Add account ids to the key digest of ``part`` at ``as_of``."""
        self.add_digest(part, as_of, key_digest(ids))

    def add_digest(self, part: str, as_of: datetime, keys: KeyDigest) -> None:
        """Add a key digest to that of ``part`` at ``as_of``; the empty set is left out."""
        if keys != KeyDigest():
            name = key_name(part, as_of)
            self.keys[name] = self.keys.get(name, KeyDigest()) + keys
