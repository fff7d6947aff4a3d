"""Suppressions: accounts, domains and segments that are scored and not flagged for a while, and who answers for it."""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa

from batchscore.audit import Act
from batchscore.command import whole_command, word
from batchscore.errors import Refused
from batchscore.flag import AccountId
from batchscore.ports import Suppression
from batchscore.store.audit import Done
from batchscore.store.claiming import Desk
from batchscore.store.rows import microseconds, stored_id, suppression
from batchscore.store.schema import kind_of
from batchscore.store.tables import suppressions


class Subject(NamedTuple):
    """What a suppression speaks of."""

    queue: str
    scope: str
    key: str


def add(connection: sa.Connection, desk: Desk, queue: str, asked: Suppression, by: str) -> Suppression:
    """Begin one now, up to ``asked.until``; what it begins at is the database's clock, and never the past."""
    what = Subject(queue, asked.scope, asked.key)
    at = desk.clock(connection)
    until = microseconds(asked.until)
    if until <= at:
        raise ValueError("a suppression ends after now")
    row = {
        "queue": queue, "scope": asked.scope, "subject": stored_id(asked.key, desk.largest_id), "begins_at": at,
        "until": until, "owner": asked.owner, "why": asked.why, "removed_by": None,
    }  # fmt: skip
    connection.execute(suppressions.insert().values(**row))
    said = f"owner {asked.owner}, until {asked.until:%Y-%m-%d %H:%M} UTC"
    _record(connection, desk, Act.SUPPRESSED, what, by, said)
    found = connection.execute(sa.select(suppressions).where(_of(what, desk), suppressions.c.begins_at == at))
    return suppression(found.mappings().one())


def remove(connection: sa.Connection, desk: Desk, what: Subject, by: str) -> int:
    """End those of that scope and key that hold; how many.

    Raises:
        Refused: ``suppression_unknown``: none does.
    """
    at = desk.clock(connection)
    ended = suppressions.update().where(_of(what, desk), suppressions.c.until > at).values(until=at, removed_by=by)
    n = connection.execute(ended).rowcount
    if not n:
        raise Refused(
            "suppression_unknown",
            f"no suppression of that {what.scope} holds",
            where=f"queue {what.queue}",
            remedy=f"what holds: {whole_command('suppress list', desk.trail.folder, '--queue', word(what.queue))}",
        )
    _record(connection, desk, Act.UNSUPPRESSED, what, by, f"{n} ended")
    return n


def _of(what: Subject, desk: Desk) -> sa.ColumnElement[bool]:
    subject: Any = stored_id(what.key, desk.largest_id)
    return sa.and_(suppressions.c.queue == what.queue, suppressions.c.scope == what.scope, suppressions.c.subject == subject)


def _record(connection: sa.Connection, desk: Desk, done: Act, what: Subject, who: str, said: str) -> None:
    """An account stands in the trail as a keyed digest, like everywhere in it; a domain or segment in words."""
    account_id: AccountId | None = None
    named = f"{what.scope} {what.key}"
    if what.scope == "account":
        account_id = int(what.key) if kind_of(connection) == "integer" else what.key
        named = what.scope
    entry = Done(act=done, who=who, run_id="", account_id=account_id, detail=f"queue {what.queue}, {named}: {said}")
    desk.trail.append(connection, [entry])
