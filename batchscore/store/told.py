"""What people did with a run's flags, and what the outbox told of them, row by row as the tables hold it. Reads only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import sqlalchemy as sa

from batchscore.digest import digest_of
from batchscore.ports import HeldChange, HeldClaim, HeldOpinion
from batchscore.store.paging import paged
from batchscore.store.rows import RowsOf, account_id_of
from batchscore.store.tables import claims_table, dispositions_table, events_table

_PAGE: Final = 10_000
_DIGEST_CHARS: Final = 32
_claims: Final = claims_table("raw")
_opinions: Final = dispositions_table("raw")
_events: Final = events_table("raw")


def opinion_digest(row: Mapping[str, Any]) -> str:
    """What names a row of `dispositions` in the entry of the trail that it came with: all of it but whom it is about."""
    said = (
        "number",
        "disposition",
        "state",
        "reviewer",
        "decided_at",
        "recorded_at",
        "evidence",
        "evidence_run",
        "why",
        "source",
    )
    return digest_of([row[name] for name in said])[:_DIGEST_CHARS]


def opinions_of(rows_of: RowsOf, run_id: str) -> Iterator[HeldOpinion]:
    """What people said of the run's flags, by queue, account and number."""
    key = (_opinions.c.queue, _opinions.c.account_id, _opinions.c.number)
    for row in paged(rows_of, sa.select(_opinions).where(_opinions.c.run_id == run_id), key, _PAGE):
        yield HeldOpinion(
            queue=row["queue"],
            account_id=account_id_of(row["account_id"]),
            by=row["reviewer"],
            state=row["state"],
            digest=opinion_digest(dict(row)),
        )


def claims_of(rows_of: RowsOf, run_id: str) -> Iterator[HeldClaim]:
    """The newest claim of each of the run's flags that ever was claimed, by queue and account."""
    key = (_claims.c.queue, _claims.c.account_id)
    query = sa.select(*key, _claims.c.reviewer, _claims.c.ended_at).where(_claims.c.run_id == run_id)
    for row in paged(rows_of, query, key, _PAGE):
        yield HeldClaim(account_id=account_id_of(row["account_id"]), by=row["reviewer"], ended=row["ended_at"] is not None)


def changes_of(rows_of: RowsOf, run_id: str) -> Iterator[HeldChange]:
    """The outbox's rows of the run, by number."""
    key = (_events.c.number,)
    query = sa.select(*key, *(_events.c[name] for name in HeldChange._fields)).where(_events.c.run_id == run_id)
    for row in paged(rows_of, query, key, _PAGE):
        change = HeldChange(*(row[name] for name in HeldChange._fields))
        yield change if change.account_id is None else change._replace(account_id=account_id_of(row["account_id"]))


def is_without_gap(rows_of: RowsOf) -> bool:
    """Whether the outbox has each number from 1 to its last exactly once, as far as sums can tell."""
    (row,) = rows_of(sa.select(sa.func.sum(_events.c.n).label("n"), sa.func.max(_events.c.number).label("last")))
    return bool((row["n"] or 0) == (row["last"] or 0))
