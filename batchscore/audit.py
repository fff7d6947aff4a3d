"""Values of the audit trail: who did what to the review queue, and the chain that makes a later edit show.

An entry's digest covers the entry and the digest before it, so an entry that was altered, deleted or moved breaks every one
after it. What a chain alone cannot show is a tail that was cut together with its head: `verify` finds one that told of its
run, by the rows that are left; else compare the head with one kept outside, such as the one that each report prints. An account
stands in an entry as a keyed digest: without the store's key nobody can tell which it is.
"""

from __future__ import annotations

import hashlib
import hmac
from enum import StrEnum
from typing import Final

from batchscore.digest import digest_of
from batchscore.flag import AccountId
from batchscore.values import Value

BEGINNING: Final = "0" * 64  # what the first entry follows
BY_CHARS: Final = 255  # of the name of whoever did it, here and in every other row that has one


def mistake_of_name(by: str, *, of: str) -> str:
    """What is wrong with the name of whoever does something, in words; empty for nothing. ``of``: whose name it is, in words."""
    fine = by.strip() and len(by) <= BY_CHARS and by.isprintable()
    return "" if fine else f"the name of {of} has 1 to {BY_CHARS} characters, on one line"


class Act(StrEnum):
    """What an entry says was done."""

    RELEASED = "released"  # a run's flags came before the reviewers
    CLAIMED = "claimed"  # a person is at one flag
    RETURNED = "returned"  # a claim was given back, or ran out
    DECIDED = "decided"  # a person said what one flag is
    EXPIRED = "expired"  # nobody took one flag for too long
    SUPPRESSED = "suppressed"  # accounts are not flagged for a while
    UNSUPPRESSED = "unsuppressed"
    UNDO_BEGUN = "undo begun"
    WITHDRAWN = "withdrawn"  # one flag of the run
    RESTORED = "restored"  # one flag that the run's had superseded
    TURNED = "evidence turned"  # of another run: it counts, or does so no more, now that the run's is gone
    UNDONE = "undone"
    APPROVED = "hold approved"  # a person let a held run go on
    PAUSED = "pause asked"
    CANCELLED = "cancel asked"
    ACCEPTED = "change accepted"  # another version of a library than a plan pinned
    CONTINUED = "request withdrawn"  # a pause by `continue`, a cancel by `resume`


class AuditEntry(Value):
    """One entry. ``at``: microseconds since 1970 by the database's clock; ``account``: `account_digest`, or empty."""

    number: int
    at: int
    act: str
    who: str
    run_id: str
    account: str = ""
    detail: str = ""

    def chained(self, before: str) -> str:
        """The digest of this entry after one whose digest is ``before``: SHA-256, 64 hex digits."""
        return digest_of([before, *self.model_dump().values()])


def account_digest(key: bytes, account_id: AccountId) -> str:
    """HMAC-SHA256 of an account id under the store's key, 64 hex digits. Kinds of ids do not meet: 7 is not "7"."""
    kind = "s" if isinstance(account_id, str) else "i"
    return hmac.new(key, f"{kind}{account_id}".encode(), hashlib.sha256).hexdigest()
