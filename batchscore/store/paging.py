"""Rows in the order of their key, a page at a time: a caller may take its time, and no transaction waits for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from batchscore.store.rows import RowsOf


def paged(rows_of: RowsOf, query: sa.Select[Any], key: Sequence[sa.Column[Any]], size: int) -> Iterator[sa.RowMapping]:
    """The rows of ``query``, of which ``key`` is unique and selected; up to ``size`` are asked for at once."""
    query = query.order_by(*key).limit(size)
    rows = rows_of(query)
    yield from rows
    while len(rows) == size:
        last = [rows[-1][column.name] for column in key]
        rows = rows_of(query.where(_after(key, last)))
        yield from rows


def _after(key: Sequence[sa.Column[Any]], last: Sequence[Any]) -> sa.ColumnElement[bool]:
    """Beyond that key, in the order of its columns."""
    first, *others = key
    beyond: sa.ColumnElement[bool] = first > last[0]
    return sa.or_(beyond, sa.and_(first == last[0], _after(others, last[1:]))) if others else beyond
