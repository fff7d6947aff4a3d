"""What the audit trail tells of one run, held against the rows that people, undos and releases left. Reads only.

The trail is chained, and each change of a flag is written into it, and into the outbox, in the transaction of the change itself.
So a row that was edited, deleted or invented since contradicts an entry; and a tail that was cut off the trail, its head set
back, leaves the run's rows without the entries that they came with. Accounts are compared as the trail has them, by keyed
digests, in bags: how many, and a sum.

A store lives while it is looked at: whoever finds a contradiction reads the trail on, and looks again if it told of the run.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from batchscore.audit import BEGINNING, Act, AuditEntry, account_digest
from batchscore.desk import Happened
from batchscore.errors import BatchscoreError
from batchscore.flag import BEFORE_REVIEWERS, AccountId, FlagState, ReleasedAs
from batchscore.ports import HeldFlag, ReleaseCount, RunRow, StoreReader

_SHOWN_AT_ONCE: Final = timedelta(seconds=60)  # between a release's row and its entry, which one transaction writes
_RELEASED: Final = re.compile(
    r"(?P<n>\d+) (?P<flags>flags|more flags), (?P<overtaken>\d+) overtaken(?P<kinds> \(.*\))?"
    r"(?:, (?P<suppressed>\d+) suppressed since)?"
)
_ASKED: Final = frozenset({Act.PAUSED, Act.CANCELLED, Act.CONTINUED})
_OF_PEOPLE: Final = frozenset({Act.CLAIMED, Act.RETURNED, Act.DECIDED, Act.EXPIRED})
# What the outbox says of one flag that came after its run's release, or that an undo turned.
_CAME: Final = frozenset({Happened.OPENED, Happened.EVIDENCE, Happened.KEPT, Happened.UNMOVED, Happened.SUPPRESSED})


class Bag:
    """Things, how often each: compared and never listed."""

    def __init__(self) -> None:
        self.n, self._sum = 0, 0

    def add(self, *parts: str, times: int = 1) -> None:
        """One more, so many times."""
        of_it = int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest())
        self.n, self._sum = self.n + times, (self._sum + times * of_it) % (1 << 256)

    def add_next(self, *parts: str) -> None:
        """One more, which comes after all that are there: in another order it is another bag."""
        self.add(str(self.n), *parts)

    def __add__(self, other: Bag) -> Bag:
        both = Bag()
        both.n, both._sum = self.n + other.n, (self._sum + other._sum) % (1 << 256)
        return both

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bag) and (self.n, self._sum) == (other.n, other._sum)

    __hash__ = None  # type: ignore[assignment]  # it grows


class Trail:
    """The store's trail, read from its beginning, and what it tells of one run.

    ``broken``: where the chain is no chain. ``n``: entries read. The others are what the entries of the run say, by act.
    """

    def __init__(self, reader: StoreReader, run_id: str) -> None:
        self._reader, self._run_id = reader, run_id
        self._first_head = reader.audit_head()
        self._digest = BEGINNING
        self._passed_head = self._first_head == (0, BEGINNING)
        self.n = 0
        self.broken: list[str] = []
        self.began_at: datetime | None = None
        self.acts: Counter[str] = Counter()
        self.accepted: list[tuple[str, str]] = []
        self.approved: list[tuple[str, str]] = []
        self.released_at: datetime | None = None
        self.releases: list[str] = []  # what each said that it put before the reviewers: the run's first, then more of it
        self.withdrawn, self.decided, self.changes, self.turned = Bag(), Bag(), Bag(), Bag()
        self.undigested: Counter[tuple[str, str, str]] = Counter()  # decisions of before entries named the row
        self.claimed: dict[str, tuple[str, bool]] = {}  # account → who claimed it last, and whether that has ended
        self.expired: set[str] = set()
        self.restored: Counter[str] = Counter()
        self.read_on()

    def read_on(self) -> bool:
        """Read what came since; whether any of it speaks of the run."""
        speaks = False
        for entry, digest in self._reader.audit(after=self.n):
            if entry.number != self.n + 1 or entry.chained(self._digest) != digest:
                self.broken.append(f"entry {entry.number:,} does not follow the one before: one was altered or is gone")
            self.n, self._digest = entry.number, digest
            self._passed_head |= (self.n, digest) == self._first_head
            self.began_at = self.began_at or _moment(entry.at)
            speaks |= self._hear(entry)
        return speaks

    @property
    def ends_at_its_head(self) -> bool:
        """Whether it holds the head as that was at first, and nothing beyond the head as it is now."""
        number, digest = self._reader.audit_head()
        return self._passed_head and (self._digest == digest if self.n == number else self.n < number)

    def _hear(self, entry: AuditEntry) -> bool:
        named = f"that of {self._run_id}: ", f"the flag of {self._run_id}"
        if entry.act == Act.TURNED and entry.detail.startswith(named[0]):
            self.turned.add(entry.account)
            return True
        if entry.act == Act.RESTORED and entry.detail == named[1]:
            self.restored[entry.account] += 1
            return True
        if entry.run_id != self._run_id:
            return False
        self.acts[entry.act] += 1
        if entry.act == Act.ACCEPTED:
            self.accepted.append((entry.who, entry.detail))
        elif entry.act == Act.APPROVED:
            self.approved.append((entry.who, entry.detail))
        elif entry.act == Act.RELEASED:
            self.released_at = self.released_at or _moment(entry.at)
            self.releases.append(entry.detail)
        elif entry.act == Act.WITHDRAWN:
            self.withdrawn.add(entry.account)
            self.changes.add_next(entry.act, entry.who, entry.account, FlagState.WITHDRAWN)
        elif entry.act in _OF_PEOPLE:
            self._hear_person(entry)
        return True

    def _hear_person(self, entry: AuditEntry) -> None:
        state, _, digest = entry.detail.rpartition(": ")[2].partition(", row ")
        self.changes.add_next(entry.act, entry.who, entry.account, state)
        if entry.act == Act.CLAIMED:
            self.claimed[entry.account] = entry.who, False
        elif entry.act == Act.EXPIRED:
            self.expired.add(entry.account)
        else:
            if entry.act == Act.DECIDED and digest:
                self.decided.add(entry.account, entry.who, entry.detail)
            elif entry.act == Act.DECIDED:
                self.undigested[entry.account, entry.who, entry.detail] += 1
            if entry.account in self.claimed:
                self.claimed[entry.account] = self.claimed[entry.account][0], True


class RowsOfRun:
    """A run's rows of flags, people and outbox, held against a trail."""

    def __init__(self, row: RunRow, reader: StoreReader, trail: Trail) -> None:
        self._row, self._reader, self._trail = row, reader, trail
        self._key: bytes | None = None
        self.n = 0

    def contradictions(self) -> Iterator[str]:
        """What does not agree, in words without an account."""
        flags, more, turns, wrong = self._flags()
        yield from wrong
        yield from self._release(flags)
        yield from self._people()
        yield from self._outbox(len(flags), more, turns)
        asked = sum(self._trail.acts[act] for act in _ASKED)
        if asked != self._row.n_requests:
            yield "what was asked of the run (pause, continue, cancel) is not what the trail tells of it"

    def _digest(self, account_id: AccountId) -> str:
        if self._key is None:
            self._key = self._reader.audit_key()
        return account_digest(self._key, account_id)

    def _flags(self) -> tuple[list[ReleasedAs], list[HeldFlag], Bag, list[str]]:
        """What all flags came as, in the run's order; those after the release; how undos turned them; what is wrong of any."""
        counted = self._release_size()
        places: list[tuple[int, ReleasedAs]] = []
        more: list[HeldFlag] = []
        withdrawn, turns = Bag(), Bag()
        wrong: Counter[str] = Counter()
        for flag in self._reader.flags(self._row.run_id):
            self.n += 1
            places.append((flag.ordinal, flag.released_as))
            if flag.ordinal > counted and self._row.released_at is not None:
                more.append(flag)
            if flag.state == FlagState.WITHDRAWN:
                withdrawn.add(self._digest(flag.flag.account_id))
            if flag.turns:
                turns.add(self._digest(flag.flag.account_id), times=flag.turns)
            if found := self._wrong(flag):
                wrong[found] += 1
        said = [f"{n:,} flag(s) {what}" for what, n in sorted(wrong.items())]
        if withdrawn != self._trail.withdrawn:
            said.append("the flags that are withdrawn are not those of which the trail tells")
        if turns.n > self._trail.turned.n:
            said.append("undos are said to have turned evidence more often than the trail tells")
        places.sort()
        if any(ordinal != place for place, (ordinal, _) in enumerate(places, start=1)):
            said.append("the flags are not numbered from 1 without a gap")
        return [came_as for _, came_as in places], more, turns, said

    def _wrong(self, flag: HeldFlag) -> str:
        came_before, trail = flag.released_as in BEFORE_REVIEWERS, self._trail
        if flag.state == FlagState.OVERTAKEN:
            return "gave way and are said to have opened" if came_before else ""
        if not came_before and self._digest(flag.flag.account_id) not in trail.restored:
            return "stand, or stood, although they gave way and the trail tells of no undo that restored them"
        if flag.state == FlagState.EXPIRED and self._digest(flag.flag.account_id) not in trail.expired:
            return "expired, and the trail does not tell of it"
        expired = bool(trail.expired) and flag.state == FlagState.OPEN
        if expired and self._digest(flag.flag.account_id) in trail.expired:
            return "are open, and the trail tells that they expired"
        return ""

    def _release_size(self) -> int:
        return sum(change.n for change in self._reader.changes(self._row.run_id) if change.act == Happened.RELEASED)

    def _release(self, flags: Sequence[ReleasedAs]) -> Iterator[str]:
        """The run's row, and what its flags came as, against the entries of its releases."""
        at, told_at = self._row.released_at, self._trail.released_at
        if told_at is not None:
            if at is None or abs(at - told_at) > _SHOWN_AT_ONCE:
                yield "the run's row does not say that it was released when the trail tells that it was"
            if not self._came_as_told(flags):
                yield "the run has other flags than the trail tells that it released"
        elif at is not None and flags and self._was_to_tell(at):
            yield "the run's row says that it is released, and the trail does not tell of it"

    def _came_as_told(self, flags: Sequence[ReleasedAs]) -> bool:
        """Whether each release tells of the flags that came with it, which are numbered in the order of coming."""
        counted = begins = 0
        for said in self._trail.releases:
            told = _RELEASED.fullmatch(said)
            if told is None:
                return False
            ends = begins + int(told["n"]) + int(told["overtaken"]) + int(told["suppressed"] or 0)
            counted += ends - begins if told["flags"] == "flags" else 0
            # Entries of before told of fewer kinds, and flags of before were given theirs later: they count alone.
            if told["kinds"] and said != ReleaseCount.of(Counter(flags[begins:ends])).said(told["flags"]):
                return False
            begins = ends
        return (begins, counted) == (len(flags), self._release_size())

    def _was_to_tell(self, released_at: datetime) -> bool:
        """Whether there was a trail at that time: a store of before had none, and no key for it."""
        if self._trail.began_at is not None:
            return released_at >= self._trail.began_at
        try:
            self._reader.audit_key()
        except BatchscoreError:
            return False
        return True

    def _people(self) -> Iterator[str]:
        """Opinions and claims against what the trail tells that people did."""
        decided, undigested = Bag(), self._trail.undigested.copy()
        for opinion in self._reader.opinions(self._row.run_id):  # of a flag in the order of time: the undigested ones are first
            self.n += 1
            account, said = self._digest(opinion.account_id), f"queue {opinion.queue}: {opinion.state}"
            if undigested[account, opinion.by, said]:
                undigested[account, opinion.by, said] -= 1
            else:
                decided.add(account, opinion.by, f"{said}, row {opinion.digest}")
        if decided != self._trail.decided or undigested.total():
            yield "what people decided is not what the trail tells of it: a row was edited, invented or deleted"
        claimed = {self._digest(claim.account_id): (claim.by, claim.ended) for claim in self._reader.claims(self._row.run_id)}
        self.n += len(claimed)
        if claimed != self._trail.claimed:
            yield "the claims are not those of which the trail tells"

    def _outbox(self, n_flags: int, more: list[HeldFlag], turns: Bag) -> Iterator[str]:
        """The outbox's rows against the trail and the flags; their order too, since whoever follows them goes by it."""
        changes, came = Bag(), Bag()
        releases: list[int] = []
        restored: Counter[str] = Counter()
        queue, misplaced = self._row.plan.spec.policy.queue, False
        for change in self._reader.changes(self._row.run_id):
            self.n += 1
            account = "" if change.account_id is None else self._digest(change.account_id)
            misplaced |= change.queue != queue or (change.n != 1 and change.act != Happened.RELEASED)
            if change.act == Happened.RELEASED:
                releases.append(change.n)
            elif change.act == Happened.RESTORED:
                restored[account] += 1
            elif change.act in _CAME:
                came.add(account)
            else:
                changes.add_next(change.act, change.who, account, change.state)
        expected = Bag()
        for flag in more:
            expected.add(self._digest(flag.flag.account_id))
        is_out = self._row.released_at is not None and n_flags > 0
        released = len(releases) == 1 and 0 < releases[0] <= n_flags if is_out else not releases
        # One that stood again before its run was released has no event of that, but the one of its release.
        same = released and changes == self._trail.changes and restored <= self._trail.restored
        if misplaced or not same or came != expected + turns:
            yield "the events of its flags are not those that the trail and the flags tell of"
        if not self._reader.events_without_gap():
            yield "the events of the store are not numbered without a gap: some were deleted, or are not what they were"


def _moment(microseconds: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=microseconds)
