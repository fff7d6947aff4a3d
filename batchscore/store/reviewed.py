"""Flags as the desk sees them, read for some accounts of a queue: evidence, claim, and what was decided."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from batchscore.database import clock
from batchscore.desk import Claim, DispositionRow, Reviewed, Wanted
from batchscore.evidence import Evidence, evidence_changes
from batchscore.flag import TOUCHED, AccountId, Disposition, FlagState, ReleasedAs
from batchscore.store.past import same_flag
from batchscore.store.rows import RowsOf, account_id_of, flag_of, from_microseconds, moment
from batchscore.store.tables import claims_table, dispositions_table, flags_table, runs

IDS_A_STATEMENT: Final = 500
LABELS_A_PAGE = 10_000  # tests make it smaller
flags: Final = flags_table("raw")
claims: Final = claims_table("raw")
dispositions: Final = dispositions_table("raw")

_CHANGED_NOTHING: Final = frozenset({ReleasedAs.KEPT, ReleasedAs.UNMOVED})

Key = tuple[Any, str]  # account id as the column holds it, run id


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """The flags of one account in a queue that people may know of, by run; ``meant`` is the one that is meant by the account.

    That is the flag that stands, else the newest; withdrawn ones only when there is no other. ``standing``: the run whose flag
    stands, though nobody may know of it yet.
    """

    flags: Mapping[str, Reviewed]
    meant: str | None
    standing: str | None = None


FlagKey = tuple[str, Any, str]  # queue, account id as the column holds it, run id


def chosen(connection: sa.Connection, now: sa.ColumnElement[Any], wanted: Wanted, limit: int | None) -> list[FlagKey]:
    """Flags of released runs, by queue, newest as-of, rank. Those an undo takes back are not among them."""
    at = clock(connection, now)
    ran_out = (flags.c.state == FlagState.CLAIMED.value) & (claims.c.until <= at)
    had_one = sa.select(dispositions.c.run_id).where(same_flag(dispositions, flags)).exists()  # of two opinions
    free_again = sa.case((had_one, FlagState.AWAITING.value), else_=FlagState.OPEN.value)
    state = sa.case((ran_out, free_again), else_=flags.c.state)
    query = (
        sa.select(flags.c.queue, flags.c.account_id, flags.c.run_id)
        .select_from(flags.join(runs, runs.c.run_id == flags.c.run_id).outerjoin(claims, same_flag(claims, flags)))
        .where(runs.c.released_at.is_not(None), flags.c.state != FlagState.OVERTAKEN.value)
        .where(runs.c.undo_begun_at.is_(None) | (state != FlagState.OPEN.value))
        .where(state.in_([one.value for one in wanted.states]) if wanted.states else flags.c.open_marker == 1)
        .order_by(flags.c.queue, flags.c.as_of.desc(), flags.c.rank, flags.c.run_id)
        .limit(limit)
    )
    if wanted.queue is not None:
        query = query.where(flags.c.queue == wanted.queue)
    if wanted.group is not None:
        query = query.where(flags.c.group_key == wanted.group)
    if wanted.run_id is not None:
        query = query.where(flags.c.run_id == wanted.run_id)
    if wanted.claimed_by is not None:
        query = query.where(claims.c.reviewer == wanted.claimed_by, claims.c.ended_at.is_(None), claims.c.until > at)
    if wanted.reason is not None:
        coded = f'"code":{json.dumps(wanted.reason)}'  # by its bytes: SQLite's LIKE folds case
        query = query.where(sa.func.instr(flags.c.reasons, coded) > 0)
    return [(row.queue, row.account_id, row.run_id) for row in connection.execute(query)]


def shown(connection: sa.Connection, now: sa.ColumnElement[Any], keys: Sequence[FlagKey]) -> tuple[Reviewed, ...]:
    """Those flags as they stand now, in the same order; one that is no flag of its own any more is left out."""
    at = clock(connection, now)
    found: dict[FlagKey, Reviewed] = {}
    for queue in {queue for queue, _, _ in keys}:
        ids = [account_id for of_queue, account_id, _ in keys if of_queue == queue]
        for account_id, account in accounts(connection, queue, ids, at).items():
            found |= {(queue, account_id, run_id): flag for run_id, flag in account.flags.items()}
    return tuple(found[key] for key in keys if key in found)


def of_account(connection: sa.Connection, now: sa.ColumnElement[Any], queue: str, account_id: Any) -> tuple[Reviewed, ...]:
    """Every flag of an account in a queue, by when its run was released."""
    at = clock(connection, now)
    found = accounts(connection, queue, [account_id], at).get(account_id)
    return () if found is None else tuple(sorted(found.flags.values(), key=lambda one: (one.released_at, one.flag.run_id)))


def decided_labels(rows_of: RowsOf, queue: str) -> Iterator[tuple[AccountId, bool, datetime]]:
    """What people decided in a queue, by account and time; a page of accounts at a time. Of two reviewers the second settles it.

    What was corrected is there too, each time it was decided; a flag that is inconclusive by its newest decision says nothing,
    and is left out with all that was decided on it before.
    """
    later, last = dispositions.alias("later"), dispositions.alias("last")
    newest = sa.select(sa.func.max(later.c.number)).where(same_flag(later, last)).correlate(last).scalar_subquery()
    settled = sa.select(last.c.state).where(same_flag(last, dispositions), last.c.number == newest)
    settled_as = settled.correlate(dispositions).scalar_subquery()
    of_use = [FlagState.CONFIRMED.value, FlagState.CLEARED.value]
    said = dispositions.c.state.in_(of_use) & settled_as.in_(of_use)
    key = (dispositions.c.account_id, dispositions.c.decided_at, dispositions.c.run_id, dispositions.c.number)
    query = sa.select(*key, dispositions.c.state).where(dispositions.c.queue == queue, said).order_by(*key).limit(LABELS_A_PAGE)
    page: sa.Select[Any] | None = query
    while page is not None:
        rows = rows_of(page)
        page = None
        if len(rows) == LABELS_A_PAGE:  # the last account's may go on: they come whole, and the next page after them
            last = rows[-1]["account_id"]
            whole = rows_of(query.where(dispositions.c.account_id == last).limit(None))
            rows = [*(row for row in rows if row["account_id"] != last), *whole]
            page = query.where(dispositions.c.account_id > last)
        for row in rows:
            yield account_id_of(row["account_id"]), row["state"] == FlagState.CONFIRMED, from_microseconds(row["decided_at"])


def misstated(run_id: str) -> sa.Select[Any]:
    """Counts flags of a run whose state is a person's and is not what people's rows say, or is not and they say otherwise."""
    later = dispositions.alias("later")
    newest = sa.select(sa.func.max(later.c.number)).where(same_flag(later, flags)).scalar_subquery()
    last = (
        sa.select(dispositions.c.state).where(same_flag(dispositions, flags), dispositions.c.number == newest).scalar_subquery()
    )
    claimed = sa.select(claims.c.run_id).where(same_flag(claims, flags), claims.c.ended_at.is_(None)).exists()
    said = sa.case((claimed, FlagState.CLAIMED.value), else_=sa.func.coalesce(last, ""))
    touched = flags.c.state.in_([state.value for state in TOUCHED])
    wrong = sa.or_(touched & (flags.c.state != said), ~touched & (said != ""))
    return sa.select(sa.func.count().label("n")).select_from(flags).where(flags.c.run_id == run_id, wrong)


def accounts(connection: sa.Connection, queue: str, ids: Sequence[Any], at: int, *, locked: bool = False) -> dict[Any, Account]:
    """What there is of those accounts. ``at``: the database's clock in microseconds; ``locked``: nobody changes it meanwhile."""
    found: dict[Any, Account] = {}
    for first in range(0, len(ids), IDS_A_STATEMENT):
        found |= _some(connection, queue, ids[first : first + IDS_A_STATEMENT], at, locked=locked)
    return found


def _some(connection: sa.Connection, queue: str, ids: Sequence[Any], at: int, *, locked: bool) -> dict[Any, Account]:
    query = (
        sa.select(flags).where(flags.c.queue == queue, flags.c.account_id.in_(ids)).order_by(flags.c.account_id, flags.c.run_id)
    )
    rows = connection.execute(query.with_for_update() if locked else query).mappings().all()
    if not rows:
        return {}
    of_runs = sa.select(runs.c.run_id, runs.c.released_at, runs.c.undo_begun_at)
    named = {row["run_id"] for row in rows}
    released = {
        row.run_id: row for row in connection.execute(of_runs.where(runs.c.run_id.in_(named))) if row.released_at is not None
    }
    of_claims = sa.select(claims).where(claims.c.queue == queue, claims.c.account_id.in_(ids), claims.c.ended_at.is_(None))
    claimed = {(row["account_id"], row["run_id"]): row for row in connection.execute(of_claims).mappings()}
    of_dispositions = (
        sa.select(dispositions)
        .where(dispositions.c.queue == queue, dispositions.c.account_id.in_(ids))
        .order_by(dispositions.c.number)
    )
    decided: defaultdict[Key, list[sa.RowMapping]] = defaultdict(list)
    for row in connection.execute(of_dispositions).mappings():
        decided[row["account_id"], row["run_id"]].append(row)
    by_account: defaultdict[Any, list[sa.RowMapping]] = defaultdict(list)
    for row in rows:
        if row["run_id"] in released:
            by_account[row["account_id"]].append(row)
    standing = {row["account_id"]: row["run_id"] for row in rows if row["open_marker"] == 1}
    return {
        account_id: replace(_account(of_account, released, claimed, decided, at), standing=standing.get(account_id))
        for account_id, of_account in by_account.items()
    }


def _account(
    rows: Sequence[sa.RowMapping],
    released: Mapping[str, Any],
    claimed: Mapping[Key, sa.RowMapping],
    decided: Mapping[Key, Iterable[sa.RowMapping]],
    at: int,
) -> Account:
    own = [row for row in rows if row["state"] != FlagState.OVERTAKEN]

    def rank(row: sa.RowMapping) -> tuple[Any, ...]:
        return row["open_marker"] == 1, row["state"] != FlagState.WITHDRAWN, row["opened_at"], row["run_id"]

    meant = max(own, key=rank, default=None)
    made = {}
    for row in own:
        key = (row["account_id"], row["run_id"])
        of_flag = [one for one in rows if row["run_id"] in {one["run_id"], one["overtaken_by"]}]
        made[row["run_id"]] = _reviewed(row, of_flag, released, claimed.get(key), decided.get(key, ()), at)
    return Account(flags=made, meant=None if meant is None else meant["run_id"])


def _reviewed(
    row: sa.RowMapping,
    of_flag: Sequence[sa.RowMapping],
    released: Mapping[str, Any],
    claim: sa.RowMapping | None,
    decided: Iterable[sa.RowMapping],
    at: int,
) -> Reviewed:
    decided = list(decided)
    said = tuple(map(_disposition_row, decided))
    state = FlagState(row["state"])
    alive = claim is not None and claim["until"] > at
    if state is FlagState.CLAIMED and not alive:
        state = said[-1].state if said else FlagState.OPEN
    in_order = sorted(of_flag, key=lambda one: (released[one["run_id"]].released_at, one["run_id"]))
    decided_on = {one["evidence_run"] for one in decided}
    evidence = tuple(
        Evidence(
            number=number,
            flag=flag_of(one),
            released_at=_moment(released[one["run_id"]].released_at),
            withdrawn_at=None if one["run_id"] in decided_on else moment(released[one["run_id"]].undo_begun_at),
            **({} if one["run_id"] == row["run_id"] else _turned(one)),
        )
        for number, one in enumerate(in_order, start=1)
    )
    return Reviewed(
        flag=flag_of(row),
        state=state,
        released_at=_moment(released[row["run_id"]].released_at),
        version=len(evidence_changes(evidence)),
        evidence=evidence,
        claim=_claim(claim) if claim is not None and alive else None,
        decided=said,
        undone=released[row["run_id"]].undo_begun_at is not None,
    )


def _turned(row: sa.RowMapping) -> dict[str, Any]:
    """Of evidence on another run's flag: whether it counts, and what undos made of that."""
    turned_at = row["turned_at"]
    return {
        "kept": (row["released_as"] in _CHANGED_NOTHING) != bool(row["turns"] % 2),
        "turns": row["turns"],
        "turned_at": None if turned_at is None else from_microseconds(turned_at),
    }


def _claim(row: sa.RowMapping) -> Claim:
    return Claim(by=row["reviewer"], claimed_at=from_microseconds(row["claimed_at"]), until=from_microseconds(row["until"]))


def _disposition_row(row: sa.RowMapping) -> DispositionRow:
    return DispositionRow(
        number=row["number"],
        disposition=Disposition(row["disposition"]),
        state=FlagState(row["state"]),
        by=row["reviewer"],
        decided_at=from_microseconds(row["decided_at"]),
        evidence=row["evidence"],
        why=row["why"],
        source=row["source"],
    )


def _moment(seconds: float) -> Any:
    found = moment(seconds)
    assert found is not None
    return found
