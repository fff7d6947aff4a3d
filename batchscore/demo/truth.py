"""What a reviewer would have found: the demo's labels, kept apart from every input of a run.

Both worlds write the columns ``account_id``, ``is_abuse`` and ``since``, the moment of the first abuse. An account that turns
bad later is not bad yet: neither a model's labels nor a flag's rightness may know better.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


class Truth:
    """The truth at ``path``, asked as of a date. Holds the abusive accounts only."""

    def __init__(self, path: Path) -> None:
        self._abuse = pq.read_table(path, columns=["account_id", "since"], filters=pc.field("is_abuse"))

    def is_abusive(self, ids: pa.Array | pa.ChunkedArray, as_of: datetime) -> pa.Array | pa.ChunkedArray:
        """For each of ``ids``: has it shown abuse before ``as_of``?"""
        begun = pc.less(self._abuse["since"], pa.scalar(as_of, self._abuse["since"].type))
        return pc.is_in(ids, value_set=self._abuse.filter(begun)["account_id"].combine_chunks().cast(ids.type))
