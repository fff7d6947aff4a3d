"""The desk: what people write. Each verb is one transaction, or a row of them that may be begun again.

A person's rows (claims, dispositions, suppressions) are written here and nowhere else, and on MySQL by an account of its own
that no driver has. A COMMIT without an answer is asked after, by what the transaction would have left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from batchscore.command import whole_command, word
from batchscore.database import now, read, transact
from batchscore.desk import Opinion, Reviewed
from batchscore.errors import Refused
from batchscore.flag import AccountId
from batchscore.ports import Suppression
from batchscore.store import claiming, deciding, expiring, suppressing
from batchscore.store.audit import AuditTrail
from batchscore.store.claiming import Desk, Reach
from batchscore.store.reviewed import accounts
from batchscore.store.rows import MICROSECOND, largest_id, stored_id
from batchscore.store.suppressing import Subject
from batchscore.store.tables import audit, audit_head, claims_table

OPINIONS_A_TRANSACTION: Final = 10_000
T = TypeVar("T")


def _numbered(position: int) -> str:
    return f"decision {position + 1}"


class ReviewDesk:
    """What people write, over an engine. Each verb is in the trail and among the events; ``by`` is who does it."""

    def __init__(self, engine: sa.Engine, folder: Path) -> None:
        self._engine = engine
        clock = now(engine)
        self._desk = Desk(now=clock, trail=AuditTrail(folder, clock), largest_id=largest_id(engine))

    def claim(
        self,
        queue: str,
        *,
        by: str,
        for_: timedelta,
        n: int = 1,
        group: str | None = None,
        only: Sequence[AccountId] | None = None,
    ) -> tuple[Reviewed, ...]:
        """Claim up to ``n`` flags that are free, best first: of a group, or of the accounts ``only``, if those are named.

        Of ``only``, what they have claimed already is theirs for as long anew.

        Raises:
            Refused: ``flag_taken`` or ``flag_absent``: not all of ``only`` could be had; those that could are claimed.
        """
        self.return_lapsed(queue)
        ids = None if only is None else tuple(dict.fromkeys(self._held(one) for one in only))
        reach = Reach(queue=queue, by=by, n=n if ids is None else len(ids), for_us=for_ // MICROSECOND, group=group, ids=ids)
        got = self._marked(lambda connection: claiming.claim(connection, self._desk, reach))
        if ids is not None and len(got) < len(ids):
            self._refuse_unclaimed(queue, by, set(ids) - {self._held(one.flag.account_id) for one in got})
        return tuple(got)

    def return_claims(self, queue: str, *, by: str, only: Sequence[AccountId] | None = None) -> tuple[AccountId, ...]:
        """Give back what ``by`` has claimed, all of it or of the accounts ``only``; the accounts whose claim was.

        The flag of a run that was undone meanwhile is withdrawn.

        Raises:
            Refused: ``flag_absent``: an account of ``only`` is not claimed by them.
        """
        ids = None if only is None else list(dict.fromkeys(self._held(one) for one in only))
        given = self._give_back(queue, by, ids)
        if ids is not None and len(given) < len(ids):
            raise Refused(
                "flag_absent",
                f"{len(ids) - len(given)} of these flags are not claimed by {by}",
                where=f"queue {queue}",
                remedy=f"what is: {self._claimed(queue, by)}",
            )
        return given

    def return_lapsed(self, queue: str) -> tuple[AccountId, ...]:
        """Give back the claims that have run out."""
        return self._give_back(queue, None, None)

    def check(self, opinions: Sequence[Opinion]) -> list[tuple[int, Refused]]:
        """What does not stand of ``opinions`` as things are now, by position. Writes nothing."""
        found: list[tuple[int, Refused]] = []
        for first in range(0, len(opinions), OPINIONS_A_TRANSACTION):
            part = opinions[first : first + OPINIONS_A_TRANSACTION]
            _, mistakes = read(self._engine, partial(deciding.check, desk=self._desk, opinions=part), where="store")
            found += [(first + position, refusal) for position, refusal in mistakes]
        return found

    def decide(self, opinions: Sequence[Opinion], *, source: str = "queue", name: Callable[[int], str] = _numbered) -> int:
        """Record opinions, all or none of each ten thousand; how many said something new. Repeatable.

        ``name`` says where the opinion of a position (from 0) is, in an error.

        Raises:
            Refused: ``flag_absent``, ``flag_taken``, ``flag_changed``, ``flag_decided``, ``second_reviewer``; of several
                ``dispositions_invalid``, with each that does not stand.
        """
        n = 0
        for first in range(0, len(opinions), OPINIONS_A_TRANSACTION):
            part = opinions[first : first + OPINIONS_A_TRANSACTION]
            at = deciding.Part(first, name)
            done = self._marked(partial(deciding.decide, desk=self._desk, opinions=part, source=source, part=at))
            n += sum(one.effect.state is not None for one in done)
        return n

    def expire(self, queue: str, *, by: str, older_than: timedelta, apply: bool) -> int:
        """Expire flags whose newest evidence came longer ago than that, and that nobody is at; or only count them."""
        now_us = read(self._engine, self._desk.clock, where="store")
        before = now_us - older_than // MICROSECOND
        if not apply:
            return read(self._engine, lambda connection: expiring.count_old(connection, queue, before, now_us), where="store")
        self.return_lapsed(queue)
        n = 0
        while done := self._marked(lambda connection: expiring.expire_some(connection, self._desk, queue, by, before)):
            n += done
        return n

    def suppress(self, queue: str, asked: Suppression, *, by: str) -> Suppression:
        """Begin a suppression now; it as it stands. Raises ValueError for one that would have ended already."""
        return self._marked(lambda connection: suppressing.add(connection, self._desk, queue, asked, by))

    def unsuppress(self, queue: str, scope: str, key: str, *, by: str) -> int:
        """End the suppressions of that key that hold; how many. Raises Refused ``suppression_unknown``."""
        return self._marked(lambda connection: suppressing.remove(connection, self._desk, Subject(queue, scope, key), by))

    def _give_back(self, queue: str, by: str | None, ids: Sequence[Any] | None) -> tuple[AccountId, ...]:
        """Page by page; nothing is locked, or made, where there is nothing to give back."""
        claims = claims_table("raw")
        ours = claims.c.until <= self._desk.now * 1_000_000 if by is None else claims.c.reviewer == by
        there = sa.select(claims.c.run_id).where(claims.c.queue == queue, claims.c.ended_at.is_(None), ours).limit(1)
        given: list[AccountId] = []
        while read(self._engine, lambda connection: connection.execute(there).first(), where="store") is not None:
            some = self._marked(lambda connection: claiming.return_claims(connection, self._desk, queue, by, ids))
            given += some
            if not some:
                break
        return tuple(given)

    def _refuse_unclaimed(self, queue: str, by: str, missing: set[Any]) -> None:
        def look(connection: sa.Connection) -> list[Reviewed]:
            found = accounts(connection, queue, sorted(missing), self._desk.clock(connection))
            return [account.flags[account.meant] for account in found.values() if account.meant is not None]

        there = read(self._engine, look, where="store")
        taken = sorted({flag.claim.by for flag in there if flag.claim is not None and flag.claim.by != by})
        where, remedy = f"queue {queue}", f"those that were free are yours now: {self._claimed(queue, by)}"
        if taken:
            raise Refused("flag_taken", f"claimed already by {', '.join(taken)}", where=where, remedy=remedy)
        n = len(missing)
        raise Refused("flag_absent", f"{n} of these accounts have no flag that could be claimed", where=where, remedy=remedy)

    def _claimed(self, queue: str, by: str) -> str:
        return whole_command("queue list", self._desk.trail.folder, "--queue", word(queue), "--claimed-by", word(by))

    def _held(self, account_id: AccountId) -> int | bytes:
        return stored_id(account_id, self._desk.largest_id)

    def _marked(self, body: Callable[[sa.Connection], T]) -> T:
        """One transaction. After a COMMIT without an answer, the entry that it would have added to the trail tells."""
        head: list[tuple[int, str]] = []

        def whole(connection: sa.Connection) -> T:
            result = body(connection)
            query = sa.select(audit.c.number, audit.c.digest).order_by(audit.c.number.desc()).limit(1)
            head[:] = [(row.number, row.digest) for row in connection.execute(query)]
            return result

        def landed(connection: sa.Connection) -> bool:
            connection.execute(sa.select(audit_head.c.number).with_for_update())
            if not head:
                return False
            number, digest = head[0]
            query = sa.select(audit.c.digest).where(audit.c.number == number)
            return bool(connection.execute(query).scalar_one_or_none() == digest)

        return transact(self._engine, whole, where="store", landed=landed)
