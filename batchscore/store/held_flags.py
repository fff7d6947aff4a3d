"""Flags as the table holds them: of a run whoever sees them, and of released runs as reviewers do. Reads only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import sqlalchemy as sa

from batchscore.flag import AccountId
from batchscore.ports import FlagRow, HeldFlag
from batchscore.store.paging import paged
from batchscore.store.rows import RowsOf, flag_row, held_flag, id_if_any
from batchscore.store.tables import flags_table, runs

_PAGE: Final = 10_000


def flags_of_run(rows_of: RowsOf, run_id: str) -> Iterator[HeldFlag]:
    """All flags of a run, by queue and account id; a page at a time."""
    table = flags_table("raw")
    query = sa.select(table).where(table.c.run_id == run_id)
    yield from map(held_flag, paged(rows_of, query, (table.c.queue, table.c.account_id), _PAGE))


def counted_flags(rows_of: RowsOf, run_id: str, by: str) -> dict[str, int]:
    """Value of the column ``by`` → how many flags of a run have it; empty before its release."""
    flags = flags_table("raw")
    query = sa.select(flags.c[by], sa.func.count().label("n")).where(flags.c.run_id == run_id).group_by(flags.c[by])
    return {row[by]: row["n"] for row in rows_of(query)}


def flags_of_account(rows_of: RowsOf, account_id: AccountId, largest: int) -> tuple[FlagRow, ...]:
    """Every flag of released runs about an account, by as-of; none for an id that no flag can have, as one above ``largest``."""
    held = id_if_any(account_id, largest)
    if held is None:
        return ()
    flags = flags_table("string" if isinstance(account_id, str) else "integer")
    query = (
        sa.select(flags, runs.c.released_at)
        .select_from(flags.join(runs, runs.c.run_id == flags.c.run_id))
        .where(flags.c.account_id == held, runs.c.released_at.is_not(None))
        .order_by(flags.c.as_of, flags.c.queue, flags.c.run_id)
    )
    return tuple(flag_row(row) for row in rows_of(query))


def open_flags(rows_of: RowsOf, queue: str | None, *, limit: int) -> tuple[FlagRow, ...]:
    """Open flags of released runs: by queue, newest as-of, rank."""
    view = sa.table("review_queue", *(sa.column(name) for name in ("queue", "as_of", "rank", "run_id")))
    query = (
        sa.select(sa.text("*"))
        .select_from(view)
        .order_by(view.c.queue, view.c.as_of.desc(), view.c.rank, view.c.run_id)
        .limit(limit)
    )
    if queue is not None:
        query = query.where(view.c.queue == queue)
    return tuple(flag_row(row) for row in rows_of(query))
