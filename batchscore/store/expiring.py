"""Expiry: flags that nobody took for so long, and to which no run has added since, leave the queue."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from batchscore.desk import Happened
from batchscore.flag import FlagState
from batchscore.store.claiming import Desk, What, record, set_state
from batchscore.store.past import same_flag
from batchscore.store.reviewed import IDS_A_STATEMENT, Key, claims, dispositions, flags
from batchscore.store.tables import counts_as_evidence, runs

FLAGS_A_TRANSACTION: Final = 10_000
_evidence: Final = flags.alias("evidence")
_theirs: Final = runs.alias("theirs")
_seen: Final = sa.select(_theirs.c.run_id).where(_theirs.c.released_at.is_not(None), _theirs.c.undo_begun_at.is_(None))


def expire_some(connection: sa.Connection, desk: Desk, queue: str, by: str, before: int) -> int:
    """Expire a transaction's worth of flags whose newest evidence came before that moment; how many, 0 when all are done."""
    got: list[Key] = []
    after: Any = None
    while len(got) < FLAGS_A_TRANSACTION:
        keys = [(row.account_id, row.run_id) for row in connection.execute(_old(queue, before, after)).all()]
        if not keys:
            break
        after = keys[-1][0]
        same = flags.c.account_id.in_([account_id for account_id, _ in keys])
        still = sa.select(flags.c.account_id, flags.c.run_id).where(flags.c.queue == queue, same)
        still = still.where(flags.c.state == FlagState.OPEN.value).order_by(flags.c.account_id)  # a claim may have been first
        held = {(row.account_id, row.run_id) for row in connection.execute(still.with_for_update())}
        got += [key for key in keys if key in held]
    if not got:
        return 0
    at = desk.clock(connection)
    set_state(connection, queue, got, {"state": FlagState.EXPIRED.value, "open_marker": None, "closed_at": at})
    record(connection, desk, What(Happened.EXPIRED, by, queue), [(key, FlagState.EXPIRED) for key in got], at)
    return len(got)


def count_old(connection: sa.Connection, queue: str, before: int, now: int) -> int:
    """How many flags `expire_some` would expire in all, once the claims that ran out by ``now`` are given back."""
    alive = sa.select(claims.c.run_id).where(same_flag(claims, flags), claims.c.ended_at.is_(None), claims.c.until > now).exists()
    had_one = sa.select(dispositions.c.run_id).where(same_flag(dispositions, flags)).exists()
    lapsed = (flags.c.state == FlagState.CLAIMED.value) & ~alive & ~had_one
    query = _old(queue, before, None, or_free=lapsed).with_only_columns(sa.func.count()).order_by(None).limit(None)
    return int(connection.execute(query).scalar_one())


def _old(queue: str, before: int, after: Any, or_free: sa.ColumnElement[bool] | None = None) -> sa.Select[Any]:
    is_open = flags.c.state == FlagState.OPEN.value
    free = is_open if or_free is None else is_open | or_free
    newer = (
        sa.select(_evidence.c.run_id)
        .where(_evidence.c.queue == flags.c.queue, _evidence.c.account_id == flags.c.account_id)
        .where(_evidence.c.overtaken_by == flags.c.run_id, counts_as_evidence(_evidence))
        .where(_evidence.c.opened_at >= before, _evidence.c.run_id.in_(_seen))
        .exists()
    )
    query = (
        sa.select(flags.c.account_id, flags.c.run_id)
        .select_from(flags.join(runs, runs.c.run_id == flags.c.run_id))
        .where(flags.c.queue == queue, free, flags.c.opened_at < before, ~newer)
        .where(runs.c.released_at.is_not(None), runs.c.undo_begun_at.is_(None))
        .order_by(flags.c.account_id)
        .limit(IDS_A_STATEMENT)
    )
    return query if after is None else query.where(flags.c.account_id > after)
