"""The audit trail: appended to in the transaction of the change itself, so what did not happen leaves no entry, and the reverse.

The key that hides account ids is a file in the store's folder, not a row: who has a copy of the tables cannot try ids.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from batchscore.audit import Act, AuditEntry, account_digest
from batchscore.database import clock
from batchscore.errors import DatabaseFailed, Refused
from batchscore.failpoints import Point, reach
from batchscore.flag import AccountId
from batchscore.store.paging import paged
from batchscore.store.rows import RowsOf
from batchscore.store.tables import audit, audit_head

KEY: Final = "audit.key"
CHAIN: Final = "store"  # the one row of `audit_head`
_KEY_BYTES: Final = 32
_ROWS_A_STATEMENT: Final = 500
_PAGE: Final = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """What an entry will say; its number, time and digest come with it."""

    act: Act
    who: str
    run_id: str
    account_id: AccountId | None = None
    detail: str = ""


class AuditTrail:
    """The trail of the store of that ``folder``, for writing."""

    def __init__(self, folder: Path, now: sa.ColumnElement[Any]) -> None:
        self.folder = folder
        self._now = now

    def append(self, connection: sa.Connection, acts: Sequence[Done]) -> None:
        """Chain entries to the head, in order. Locks the head; a transaction does so last.

        Raises:
            Refused: ``write_failed``: the key cannot be kept in the store's folder; ``audit_key_lost``: it is there no more.
        """
        if not acts:
            return
        of_store = audit_head.c.chain == CHAIN
        head = connection.execute(sa.select(audit_head).where(of_store).with_for_update()).one_or_none()
        if head is None:
            gone = "the head of the audit trail is gone"
            raise DatabaseFailed("database_error", gone, where="table audit_head", remedy="restore it from a backup")
        key = held_key(self.folder) if head.number else audit_key(self.folder)
        at = clock(connection, self._now)
        number, digest = head.number, head.digest
        rows = []
        for done in acts:
            number += 1
            account = "" if done.account_id is None else account_digest(key, done.account_id)
            entry = AuditEntry(
                number=number, at=at, act=done.act.value, who=done.who, run_id=done.run_id, account=account, detail=done.detail
            )
            digest = entry.chained(digest)
            rows.append({**entry.model_dump(), "digest": digest})
        for first in range(0, len(rows), _ROWS_A_STATEMENT):
            connection.execute(audit.insert(), rows[first : first + _ROWS_A_STATEMENT])
        reach(Point.AUDIT_APPENDING)
        connection.execute(audit_head.update().where(of_store).values(number=number, digest=digest))


def entries_of(rows_of: RowsOf, run_id: str | None, after: int = 0) -> Iterator[tuple[AuditEntry, str]]:
    """The trail after that entry, or what it says of one run: each entry and the digest held for it; a page at a time."""
    query = sa.select(audit).where(audit.c.number > after)
    query = query if run_id is None else query.where(audit.c.run_id == run_id)
    for row in paged(rows_of, query, (audit.c.number,), _PAGE):
        yield AuditEntry(**{name: row[name] for name in AuditEntry.model_fields}), row["digest"]


def held_key(folder: Path) -> bytes:
    """The store's key, which entries of the trail were made with: another in its place would let nobody tell their accounts.

    Raises:
        Refused: ``audit_key_lost``.
    """
    path = folder / KEY
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise Refused(
            "audit_key_lost",
            "the key of the audit trail cannot be read, and the trail has entries that were made with it",
            where=str(path),
            remedy="restore it from a backup of the folder, or let its owner look; "
            "lost for good, which accounts the trail names can never be told again: batchscore help BS-441",
        )
    return key


def audit_key(folder: Path) -> bytes:
    """The store's key, made when it is first asked for; other users of the host cannot read it.

    Raises:
        Refused: ``write_failed``.
    """
    path = folder / KEY
    try:
        if not path.exists():
            made = path.with_name(f".{KEY}.{secrets.token_hex(8)}")
            made.touch(mode=0o660)
            with made.open("w", encoding="ascii") as file:
                file.write(secrets.token_hex(_KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            reach(Point.AUDIT_KEY_MADE)
            try:
                path.hardlink_to(made)  # whoever is first gives the key; a half-written one is never read
            except FileExistsError:
                pass
            finally:
                made.unlink()
            _sync(folder)  # before an entry that was made with it is committed
    except OSError as error:
        raise Refused(
            "write_failed",
            f"the key of the audit trail cannot be made: {type(error).__name__}",
            where=str(path),
            remedy="let the user that runs batchscore write to the store's folder",
        ) from None
    return held_key(folder)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
