"""Reads a store: runs, progress, receipts, the queue. Never writes, never makes a file, and is not in a driver's way.

What is asked stands in the module of its subject (`found_runs`, `progress`, `held_flags`, `past`, `reviewed`, …); this is where
each is asked, by the methods of the port.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import sqlalchemy as sa

from batchscore.acceptance import Accepted
from batchscore.audit import AuditEntry
from batchscore.database import now, read
from batchscore.desk import QueueEvent, Reviewed, Wanted
from batchscore.flag import AccountId, FlagState, ReleasedAs
from batchscore.hold import Finding, HoldRow, Subject
from batchscore.plan import Partition, Stage
from batchscore.ports import (
    FailureRow,
    FlagRow,
    HeldChange,
    HeldClaim,
    HeldFlag,
    HeldOpinion,
    HeldOutput,
    PastColumns,
    QuarantinedRow,
    RunRow,
    StageRow,
    Suppression,
    SweepRow,
    Undo,
)
from batchscore.receipt import Receipt
from batchscore.request import Request
from batchscore.store.accepting import accepted_of
from batchscore.store.audit import entries_of, held_key
from batchscore.store.found_runs import FoundRuns
from batchscore.store.held_flags import counted_flags, flags_of_account, flags_of_run, open_flags
from batchscore.store.holding import approved_findings, holds_of
from batchscore.store.laying_out import done_before
from batchscore.store.outbox import events_after, events_of, newest_number
from batchscore.store.past import past_columns
from batchscore.store.progress import (
    failures_of,
    layouts_of,
    outputs_of,
    partitions_of,
    places_of,
    quarantined_of,
    receipts_of,
    reused_of,
    stages_of,
)
from batchscore.store.requests import COLUMNS
from batchscore.store.reviewed import chosen, decided_labels, misstated, of_account, shown
from batchscore.store.rows import id_if_any, largest_id, moment, request_of, suppression
from batchscore.store.schema import kind_of
from batchscore.store.sweeping import sweeps_of
from batchscore.store.tables import audit_head, queues, runs, suppressions
from batchscore.store.told import changes_of, claims_of, is_without_gap, opinions_of
from batchscore.store.undo import undo_of

if TYPE_CHECKING:
    from batchscore.keys import IdKind  # brings numpy and pyarrow, which `status` does without

_PAGE: Final = 1_000

T = TypeVar("T")


class Reader:
    """Implements `ports.StoreReader` over an engine."""

    def __init__(self, engine: sa.Engine, folder: Path) -> None:
        self._engine = engine
        self._folder = folder
        self._now = now(engine)
        self._largest_id = largest_id(engine)
        self._found = FoundRuns(self._rows, self._now, folder)

    def run(self, run_id: str) -> RunRow:
        """That run. Raises Refused ``run_unknown`` or ``run_id_invalid``."""
        return self._found.of_id(run_id)

    def runs(self, *, limit: int = 50) -> tuple[RunRow, ...]:
        """The newest runs first."""
        return self._found.newest(limit)

    def runs_of(self, name: str, *, limit: int) -> tuple[RunRow, ...]:
        """The newest runs of the spec of that name, however they ended, the newest first."""
        return self._found.of_spec(name, limit)

    def released_runs(self, name: str, *, limit: int) -> tuple[RunRow, ...]:
        """The newest runs of the spec of that name that are released and not undone, the newest first."""
        return self._found.released(name, limit)

    def newest_finished(self, name: str) -> RunRow | None:
        """The finished run of the spec of that name that was opened last."""
        return self._found.newest_finished(name)

    def run_before(self, row: RunRow) -> RunRow | None:
        """The newest finished run of the same spec name that was opened before this one."""
        return self._found.before(row)

    def runs_of_plan(self, plan_digest: str) -> tuple[RunRow, ...]:
        """All generations of a plan, the newest first."""
        return self._found.of_plan(plan_digest)

    def newest_of_plan(self, prefix: str) -> RunRow | None:
        """The newest run whose plan's digest begins so; ``prefix``: hex digits."""
        return self._found.newest_of_plan(prefix)

    def requested(self, run_id: str) -> Request | None:
        """What a person asks of the run now; one row without its plan."""
        rows = self._rows(sa.select(*COLUMNS).where(runs.c.run_id == run_id))
        return request_of(rows[0]) if rows else None

    def sweeps(self, name: str) -> tuple[SweepRow, ...]:
        """Sweeps of a spec and their runs, by as-of, then by when the run was made."""
        return sweeps_of(self._rows, name)

    def accepted(self, run_id: str) -> tuple[Accepted, ...]:
        """What was accepted of the run that its plan pins otherwise, in order of time."""
        return accepted_of(self._rows, run_id)

    def holds(self, run_id: str) -> tuple[HoldRow, ...]:
        """What the run was held for, in order of time; the last is what it is held for while its state is held."""
        return holds_of(self._rows, run_id)

    def approved(self, name: str, subject: Subject) -> tuple[Finding, ...]:
        """What people approved of that subject in the runs of the spec of that name, the newest approvals first."""
        return approved_findings(self._rows, name, subject)

    def stages(self, run_id: str) -> tuple[StageRow, ...]:
        """Progress of each stage laid out so far, in order; one aggregate query, no receipt is parsed."""
        return stages_of(self._rows, run_id)

    def layouts(self, run_id: str) -> dict[Stage, str]:
        """Stage → the digest of its layout, as it was fixed."""
        return layouts_of(self._rows, run_id)

    def partitions(self, run_id: str, stage: Stage) -> tuple[Partition, ...]:
        """All partitions of a stage, by number; empty before its layout."""
        return partitions_of(self._rows, run_id, stage)

    def places(self, run_id: str, stage: Stage) -> tuple[tuple[int, str], ...]:
        """(number, address) of each partition of a stage, by number, as later runs look for them."""
        return places_of(self._rows, run_id, stage)

    def unfinished(self, run_id: str, stage: Stage) -> tuple[Partition, ...]:
        """Partitions neither committed nor quarantined, by number."""
        return partitions_of(self._rows, run_id, stage, only="planned")

    def receipts(self, run_id: str, stage: Stage) -> Iterator[Receipt]:
        """Committed receipts, by partition number; a page at a time, so that a caller may take its time."""
        return receipts_of(self._rows, run_id, stage)

    def reused(self, run_id: str) -> frozenset[tuple[Stage, int]]:
        """Partitions whose receipt an earlier run had: they were committed in the transaction that laid their stage out."""
        return reused_of(self._rows, run_id)

    def quarantined(self, run_id: str) -> tuple[QuarantinedRow, ...]:
        """Partitions set aside."""
        return quarantined_of(self._rows, run_id)

    def failures(self, run_id: str) -> tuple[FailureRow, ...]:
        """Partitions at which something went wrong, by stage and number; quarantined ones are among them."""
        return failures_of(self._rows, run_id)

    def outputs(self, run_id: str) -> Iterator[HeldOutput]:
        """The files that a run refers to, by path; a page at a time."""
        return outputs_of(self._rows, run_id)

    def is_done(self, partition: Partition) -> bool:
        """Whether a committed receipt stands at that partition's address, with its files."""
        return bool(self._looked(lambda connection: done_before(connection, self._folder, [partition], hashed=True)))

    def flags(self, run_id: str) -> Iterator[HeldFlag]:
        """All flags of a run, by queue and account id; a page at a time."""
        return flags_of_run(self._rows, run_id)

    def flag_states(self, run_id: str) -> dict[FlagState, int]:
        """State → how many flags of a run stand in it; empty before its release."""
        return {FlagState(state): n for state, n in counted_flags(self._rows, run_id, "state").items()}

    def released_as(self, run_id: str) -> dict[ReleasedAs, int]:
        """What its release made of them → how many flags of a run there are; empty before its release."""
        return {ReleasedAs(kind): n for kind, n in counted_flags(self._rows, run_id, "released_as").items()}

    def misstated(self, run_id: str) -> int:
        """How many flags of a run stand otherwise than claims and dispositions say."""
        return int(self._rows(misstated(run_id))[0]["n"])

    def opinions(self, run_id: str) -> Iterator[HeldOpinion]:
        """What people said of the run's flags, by queue, account and time; a page at a time."""
        return opinions_of(self._rows, run_id)

    def claims(self, run_id: str) -> Iterator[HeldClaim]:
        """The newest claim of each of the run's flags that ever was claimed; a page at a time."""
        return claims_of(self._rows, run_id)

    def changes(self, run_id: str) -> Iterator[HeldChange]:
        """What the outbox holds of the run's flags, by number; a page at a time."""
        return changes_of(self._rows, run_id)

    def events_without_gap(self) -> bool:
        """Whether the numbers of the outbox have none, as far as sums can tell."""
        return is_without_gap(self._rows)

    def undo(self, run_id: str) -> Undo:
        """What an undo of the run would do, or did."""
        return undo_of(self._engine, self.run(run_id))

    def flags_of(self, account_id: AccountId) -> tuple[FlagRow, ...]:
        """Every flag of released runs about an account, by as-of; none for an id that no flag can have."""
        return flags_of_account(self._rows, account_id, self._largest_id)

    def queue(self, queue: str | None, *, limit: int) -> tuple[FlagRow, ...]:
        """Open flags of released runs: by queue, newest as-of, rank."""
        return open_flags(self._rows, queue, limit=limit)

    def queue_names(self) -> tuple[str, ...]:
        """The queues that flags were released into, by name."""
        return tuple(row["queue"] for row in self._rows(sa.select(queues.c.queue).order_by(queues.c.queue)))

    def past_columns(self, queue: str, *, but_not_of: RunRow) -> Iterator[PastColumns]:
        """Every flag of the queue that a released run opened and no undo withdraws, by account id then opened_at.

        Not those of the run, nor of others of its spec for its last as-of. Some thousand at a time, an account's together.
        """
        return past_columns(self._looked, queue, but_not_of)

    def suppressions(self, queue: str) -> tuple[Suppression, ...]:
        """Every suppression of the queue there ever was, by scope, subject and begin."""
        key = (suppressions.c.scope, suppressions.c.subject, suppressions.c.begins_at)
        return tuple(map(suppression, self._rows(sa.select(suppressions).where(suppressions.c.queue == queue).order_by(*key))))

    def reviewed(self, wanted: Wanted, *, limit: int) -> tuple[Reviewed, ...]:
        """Flags as the desk holds them: those before the reviewers best first, or in the states that are asked for."""
        keys = self._looked(lambda connection: chosen(connection, self._now, wanted, limit))
        return self._looked(lambda connection: shown(connection, self._now, keys))

    def all_reviewed(self, wanted: Wanted) -> Iterator[tuple[Reviewed, ...]]:
        """The same without a limit, some thousand at a time: those that are chosen now, as they stand when they come."""
        keys = self._looked(lambda connection: chosen(connection, self._now, wanted, None))
        for first in range(0, len(keys), _PAGE):
            yield self._looked(partial(shown, now=self._now, keys=keys[first : first + _PAGE]))

    def account_flags(self, queue: str, account_id: AccountId) -> tuple[Reviewed, ...]:
        """Every flag of an account in a queue, with evidence and decisions, by when it opened."""
        held = id_if_any(account_id, self._largest_id)
        if held is None:
            return ()
        return self._looked(lambda connection: of_account(connection, self._now, queue, held))

    def account_events(self, queue: str, account_id: AccountId) -> tuple[QueueEvent, ...]:
        """What happened to an account's flags in a queue, by number."""
        held = id_if_any(account_id, self._largest_id)
        if held is None:
            return ()
        return self._looked(lambda connection: events_of(connection, queue, held))

    def decided_labels(self, queue: str) -> Iterator[tuple[AccountId, bool, datetime]]:
        """What people decided in a queue, by account and time: confirmed (True) or cleared (False)."""
        return decided_labels(self._rows, queue)

    def newest_event(self) -> int:
        """The number of the newest change of a flag; 0 before there is any."""
        return self._looked(newest_number)

    def events(self, after: int, *, limit: int) -> tuple[QueueEvent, ...]:
        """Changes of flags after that number, in order: numbers have no gap, and what has come never changes."""
        return self._looked(lambda connection: events_after(connection, after, limit))

    def audit(self, run_id: str | None = None, *, after: int = 0) -> Iterator[tuple[AuditEntry, str]]:
        """The audit trail after that entry, or what it says of one run: each entry and the digest held for it, in order."""
        return entries_of(self._rows, run_id, after)

    def audit_head(self) -> tuple[int, str]:
        """Number and digest of the newest entry of the trail; 0 before there is any."""
        rows = self._rows(sa.select(audit_head))
        return (rows[0]["number"], rows[0]["digest"]) if rows else (0, "")

    def audit_key(self) -> bytes:
        """The key under which the trail names accounts."""
        return held_key(self._folder)

    def clock(self) -> datetime:
        """What time it is by the database."""
        (row,) = self._rows(sa.select(self._now.label("now")))
        found = moment(row["now"])
        assert found is not None
        return found

    def id_kind(self) -> IdKind:
        """The kind of account ids this store was made for."""
        return self._looked(kind_of)

    def _rows(self, query: sa.Select[Any]) -> Sequence[sa.RowMapping]:
        return self._looked(lambda connection: connection.execute(query).mappings().all())

    def _looked(self, body: Callable[[sa.Connection], T]) -> T:
        return read(self._engine, body, where="store")
