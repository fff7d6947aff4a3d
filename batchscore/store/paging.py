"""Long answers a page at a time, so that a caller may take its time and no connection waits for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from batchscore.store.rows import TuplesOf


def whole_accounts(
    tuples_of: TuplesOf, query: sa.Select[Any], account_id: sa.ColumnElement[Any], n: int
) -> Iterator[Sequence[sa.Row[Any]]]:
    """The rows of ``query``, sorted by its column ``account_id`` first, about ``n`` at a time; an account's come together."""
    page: sa.Select[Any] | None = query
    while page is not None:
        rows = tuples_of(page.limit(n))
        page = None
        if len(rows) == n:  # the last account's may go on: they come whole, and the next page after them
            last = rows[-1].account_id
            rows = [row for row in rows if row.account_id != last] + [*tuples_of(query.where(account_id == last))]
            page = query.where(account_id > last)
        if rows:
            yield rows
