"""Memory: which accounts had a flag open, at which moment. Pure; a table in, an array out."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from batchscore.ports import PastFlag

_MOMENT = pa.timestamp("us", tz="UTC")


def remember(past_flags: Iterable[PastFlag], id_type: pa.DataType) -> pa.Table:
    """Past flags of one queue as a table: account_id (``id_type``: uint64 or string), opened_at, closed_at (null: open)."""
    ids, opened, closed = [], [], []
    for flag in past_flags:
        ids.append(flag.account_id)
        opened.append(flag.opened_at)
        closed.append(flag.closed_at)
    columns = {
        "account_id": pa.array(ids, id_type),
        "opened_at": pa.array(opened, _MOMENT),
        "closed_at": pa.array(closed, _MOMENT),
    }
    return pa.table(columns)


def blocked_accounts(memory: pa.Table, as_of: datetime) -> pa.Array:
    """Accounts with a flag open at ``as_of``: opened before it, and not closed before it. Each once, of the memory's id type."""
    moment = pa.scalar(as_of, _MOMENT)
    still_open = pc.or_kleene(pc.is_null(memory["closed_at"]), pc.greater_equal(memory["closed_at"], moment))
    return _distinct(memory.filter(pc.and_(pc.less(memory["opened_at"], moment), still_open)))


def blocked_now(memory: pa.Table) -> pa.Array:
    """Accounts with a flag open when the memory was read, whenever it was opened. Each once."""
    return _distinct(memory.filter(pc.is_null(memory["closed_at"])))


def _distinct(flags: pa.Table) -> pa.Array:
    found = pc.unique(flags["account_id"])
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
