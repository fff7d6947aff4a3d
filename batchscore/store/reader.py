"""Reads a store: runs, progress, receipts, the queue. Never writes, never makes a file, and is not in a driver's way."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from batchscore.acceptance import Accepted
from batchscore.audit import AuditEntry
from batchscore.database import now, read
from batchscore.desk import QueueEvent, Reviewed, Wanted
from batchscore.errors import Refused
from batchscore.flag import AccountId
from batchscore.hold import Finding, HoldRow, Subject
from batchscore.plan import Partition, Stage
from batchscore.ports import (
    FailureRow,
    FlagRow,
    HeldFlag,
    HeldOutput,
    PastFlag,
    QuarantinedRow,
    RunRow,
    StageRow,
    Suppression,
    SweepRow,
    Undo,
)
from batchscore.receipt import Output, Receipt
from batchscore.request import Request
from batchscore.store.accepting import accepted_row
from batchscore.store.audit import held_key
from batchscore.store.outbox import events_after, events_of
from batchscore.store.past import past_flags
from batchscore.store.requests import COLUMNS
from batchscore.store.reviewed import chosen, decided_labels, misstated, of_account, shown
from batchscore.store.rows import (
    LARGEST_IN_MYSQL,
    flag_row,
    from_microseconds,
    held_flag,
    hold_row,
    moment,
    partition_of,
    request_of,
    run_row,
    stored_id,
    suppression,
)
from batchscore.store.schema import kind_of
from batchscore.store.tables import (
    acceptances,
    attempts,
    audit,
    audit_head,
    flags_table,
    holds,
    outputs,
    partitions,
    queues,
    run_outputs,
    runs,
    stages,
    suppressions,
    sweeps,
)
from batchscore.store.undo import undo_of

if TYPE_CHECKING:
    from batchscore.keys import IdKind  # brings numpy and pyarrow, which `status` does without

RUN_ID: Final = re.compile(r"r-[0-9a-f]{8}-[1-9][0-9]{0,8}")
_PAGE: Final = 1_000
_LONG_PAGE: Final = 10_000
_APPROVALS: Final = 100  # of a spec that are remembered, the newest: each may speak of many days
_RECEIPTS_TRIED: Final = 4  # of one address: each is of a run that did it anew


def done_before(connection: sa.Connection, folder: Path, partition: Partition, *, hashed: bool) -> Receipt | None:
    """The newest receipt that any run committed for the partition's address and whose files are whole.

    One that was made with other libraries than its address says, since a person accepted them, serves its own run alone.
    Sizes are compared always, their bytes where ``hashed``: whoever runs a plan again may do so because a file is damaged.
    """
    of_no_world = sa.exists().where(acceptances.c.run_id == partitions.c.run_id, acceptances.c.from_epoch <= partitions.c.epoch)
    query = (
        sa.select(partitions.c.receipt)
        .where(partitions.c.address == partition.address, partitions.c.state == "committed", ~of_no_world)
        .order_by(partitions.c.updated_at.desc())
        .limit(_RECEIPTS_TRIED)
    )
    for held in connection.execute(query).scalars():
        receipt = Receipt.model_validate_json(held)
        if all(_is_whole(folder / output.path, output, hashed=hashed) for output in receipt.outputs):
            return receipt.model_copy(update={"stage": partition.stage, "number": partition.number})
    return None


def _is_whole(path: Path, output: Output, *, hashed: bool) -> bool:
    try:
        if path.stat().st_size != output.n_bytes:
            return False
        if not hashed:
            return True
        from batchscore.files import file_sha256  # noqa: PLC0415 (brings Arrow, and whoever only looks needs none)

        return file_sha256(path) == output.sha256
    except OSError:
        return False


class Reader:
    """Implements `ports.StoreReader` over an engine."""

    def __init__(self, engine: sa.Engine, folder: Path) -> None:
        self._engine = engine
        self._folder = folder
        self._now = now(engine)

    def _rows(self, query: sa.Select[Any]) -> Sequence[sa.RowMapping]:
        return read(self._engine, lambda connection: connection.execute(query).mappings().all(), where="store")

    def _row(self, query: sa.Select[Any]) -> sa.RowMapping | None:
        rows = self._rows(query)
        return rows[0] if rows else None

    def _runs(self) -> sa.Select[Any]:
        """Rows of runs, and whether their leases have run out by the clock of the database."""
        return sa.select(runs, (runs.c.lease_until < self._now).label("lapsed"))

    def run(self, run_id: str) -> RunRow:
        """That run. Raises Refused ``run_unknown`` or ``run_id_invalid``."""
        if not RUN_ID.fullmatch(run_id):
            raise Refused(
                "run_id_invalid",
                "a run id looks like r-1a2b3c4d-1",
                remedy=f"batchscore status --store {self._folder} lists the runs",
            )
        row = self._row(self._runs().where(runs.c.run_id == run_id))
        if row is None:
            raise Refused(
                "run_unknown",
                f"there is no run {run_id} in this store",
                remedy=f"batchscore status --store {self._folder} lists the runs",
            )
        return run_row(row)

    def requested(self, run_id: str) -> Request | None:
        """What a person asks of the run now; one row without its plan."""
        row = self._row(sa.select(*COLUMNS).where(runs.c.run_id == run_id))
        return None if row is None else request_of(row)

    def runs(self, *, limit: int = 50) -> tuple[RunRow, ...]:
        """The newest runs first."""
        return tuple(
            run_row(row) for row in self._rows(self._runs().order_by(runs.c.created_at.desc(), runs.c.run_id).limit(limit))
        )

    def runs_of(self, name: str, *, limit: int) -> tuple[RunRow, ...]:
        """The newest runs of the spec of that name, however they ended, the newest first."""
        query = self._runs().where(runs.c.name == name).order_by(runs.c.created_at.desc(), runs.c.run_id).limit(limit)
        return tuple(run_row(row) for row in self._rows(query))

    def released_runs(self, name: str, *, limit: int) -> tuple[RunRow, ...]:
        """The newest runs of the spec of that name that are released and not undone, the newest first."""
        query = self._runs().where(runs.c.name == name, runs.c.released_at.is_not(None), runs.c.undo_begun_at.is_(None))
        return tuple(run_row(row) for row in self._rows(query.order_by(runs.c.created_at.desc(), runs.c.run_id).limit(limit)))

    def newest_finished(self, name: str) -> RunRow | None:
        """The finished run of the spec of that name that was opened last."""
        query = self._runs().where(runs.c.name == name, runs.c.state == "finished")
        found = self._row(query.order_by(runs.c.created_at.desc(), runs.c.generation.desc()).limit(1))
        return None if found is None else run_row(found)

    def runs_of_plan(self, plan_digest: str) -> tuple[RunRow, ...]:
        """All generations of a plan, the newest first."""
        query = self._runs().where(runs.c.plan_digest == plan_digest).order_by(runs.c.generation.desc())
        return tuple(run_row(row) for row in self._rows(query))

    def newest_of_plan(self, prefix: str) -> RunRow | None:
        """The newest run whose plan's digest begins so; ``prefix``: hex digits."""
        query = self._runs().where(runs.c.plan_digest.startswith(prefix, autoescape=True)).order_by(runs.c.created_at.desc())
        row = self._row(query.limit(1))
        return None if row is None else run_row(row)

    def accepted(self, run_id: str) -> tuple[Accepted, ...]:
        """What was accepted of the run that its plan pins otherwise, in order of time."""
        query = sa.select(acceptances).where(acceptances.c.run_id == run_id)
        return tuple(accepted_row(row) for row in self._rows(query.order_by(acceptances.c.accepted_at, acceptances.c.part)))

    def stages(self, run_id: str) -> tuple[StageRow, ...]:
        """Progress of each stage laid out so far, in order; one aggregate query, no receipt is parsed."""

        def in_state(state: str, value: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
            return sa.func.coalesce(sa.func.sum(sa.case((partitions.c.state == state, value), else_=0)), 0)

        one = sa.literal_column("1", sa.Integer)
        query = (
            sa.select(
                stages.c.stage,
                stages.c.laid_out_at,
                sa.func.count(partitions.c.number).label("n_partitions"),
                in_state("committed", one).label("n_committed"),
                in_state("quarantined", one).label("n_quarantined"),
                sa.func.coalesce(sa.func.sum(partitions.c.n_rows), 0).label("n_rows"),
                in_state("committed", partitions.c.n_rows).label("n_rows_committed"),
                sa.func.max(partitions.c.updated_at).label("updated_at"),
            )
            .select_from(
                stages.outerjoin(partitions, (partitions.c.run_id == stages.c.run_id) & (partitions.c.stage == stages.c.stage))
            )
            .where(stages.c.run_id == run_id)
            .group_by(stages.c.stage, stages.c.laid_out_at)
        )
        found = {row["stage"]: row for row in self._rows(query)}
        return tuple(
            StageRow(
                stage=stage,
                n_partitions=row["n_partitions"],
                n_committed=row["n_committed"],
                n_quarantined=row["n_quarantined"],
                n_rows=row["n_rows"],
                n_rows_committed=row["n_rows_committed"],
                started_at=moment(row["laid_out_at"]),
                updated_at=moment(row["updated_at"]),
            )
            for stage in Stage
            if (row := found.get(stage.value)) is not None
        )

    def partitions(self, run_id: str, stage: Stage) -> tuple[Partition, ...]:
        """All partitions of a stage, by number; empty before its layout."""
        return tuple(self._partitions(run_id, stage, states=None))

    def unfinished(self, run_id: str, stage: Stage) -> tuple[Partition, ...]:
        """Partitions neither committed nor quarantined, by number."""
        return tuple(self._partitions(run_id, stage, states=("planned",)))

    def _partitions(self, run_id: str, stage: Stage, *, states: tuple[str, ...] | None) -> Iterator[Partition]:
        query = sa.select(partitions.c.work).where(partitions.c.run_id == run_id, partitions.c.stage == stage.value)
        if states is not None:
            query = query.where(partitions.c.state.in_(states))
        for row in self._rows(query.order_by(partitions.c.number)):
            yield partition_of(row)

    def receipts(self, run_id: str, stage: Stage) -> Iterator[Receipt]:
        """Committed receipts, by partition number; a page at a time, so that a caller may take its time."""
        last = -1
        while True:
            query = (
                sa.select(partitions.c.number, partitions.c.receipt)
                .where(partitions.c.run_id == run_id, partitions.c.stage == stage.value, partitions.c.state == "committed")
                .where(partitions.c.number > last)
                .order_by(partitions.c.number)
                .limit(_PAGE)
            )
            page = self._rows(query)
            if not page:
                return
            for row in page:
                last = row["number"]
                yield Receipt.model_validate_json(row["receipt"])

    def quarantined(self, run_id: str) -> tuple[QuarantinedRow, ...]:
        """Partitions set aside."""
        query = sa.select(partitions).where(partitions.c.run_id == run_id, partitions.c.state == "quarantined")
        found = self._rows(query.order_by(partitions.c.stage, partitions.c.number))
        return tuple(
            QuarantinedRow(stage=Stage(row["stage"]), number=row["number"], reason=row["reason"], message=row["message"])
            for row in found
        )

    def holds(self, run_id: str) -> tuple[HoldRow, ...]:
        """What the run was held for, in order of time; the last is what it is held for while its state is held."""
        query = sa.select(holds).where(holds.c.run_id == run_id).order_by(holds.c.held_at, holds.c.digest)
        return tuple(map(hold_row, self._rows(query)))

    def approved(self, name: str, subject: Subject) -> tuple[Finding, ...]:
        """What people approved of that subject in the runs of the spec of that name, the newest approvals first."""
        query = (
            sa.select(holds)
            .join(runs, runs.c.run_id == holds.c.run_id)
            .where(runs.c.name == name, holds.c.subject == subject, holds.c.approved_at.is_not(None))
            .order_by(holds.c.approved_at.desc(), holds.c.run_id)
            .limit(_APPROVALS)
        )
        return tuple(finding for row in self._rows(query) for finding in hold_row(row).findings)

    def failures(self, run_id: str) -> tuple[FailureRow, ...]:
        """Partitions at which something went wrong, by stage and number; quarantined ones are among them."""
        newest = (
            sa.select(attempts.c.stage, attempts.c.number, sa.func.max(attempts.c.ordinal).label("ordinal"))
            .where(attempts.c.run_id == run_id)
            .group_by(attempts.c.stage, attempts.c.number)
            .subquery()
        )
        of_partition = (newest.c.stage == partitions.c.stage) & (newest.c.number == partitions.c.number)
        of_attempt = (
            (attempts.c.run_id == run_id)
            & (attempts.c.stage == newest.c.stage)
            & (attempts.c.number == newest.c.number)
            & (attempts.c.ordinal == newest.c.ordinal)
        )
        columns = (
            partitions.c.stage,
            partitions.c.number,
            partitions.c.state,
            partitions.c.n_failures,
            partitions.c.n_suspicions,
        )
        query = (
            sa.select(*columns, attempts.c.reason, attempts.c.message)
            .select_from(partitions.join(newest, of_partition).join(attempts, of_attempt))
            .where(partitions.c.run_id == run_id)
        )
        found = [FailureRow.model_validate(dict(row)) for row in self._rows(query)]
        return tuple(sorted(found, key=lambda row: (list(Stage).index(row.stage), row.number)))

    def reused(self, run_id: str) -> frozenset[tuple[Stage, int]]:
        """Partitions whose receipt an earlier run had: they were committed in the transaction that laid their stage out."""
        query = (
            sa.select(partitions.c.stage, partitions.c.number)
            .join(stages, (stages.c.run_id == partitions.c.run_id) & (stages.c.stage == partitions.c.stage))
            .where(partitions.c.run_id == run_id, partitions.c.state == "committed")
            .where(partitions.c.updated_at == stages.c.laid_out_at)
        )
        return frozenset((Stage(row["stage"]), row["number"]) for row in self._rows(query))

    def run_before(self, row: RunRow) -> RunRow | None:
        """The newest finished run of the same spec name that was opened before this one."""
        this = sa.select(runs.c.created_at).where(runs.c.run_id == row.run_id).scalar_subquery()
        query = self._runs().where(runs.c.name == row.name, runs.c.state == "finished", runs.c.run_id != row.run_id)
        query = query.where(runs.c.created_at <= this).order_by(runs.c.created_at.desc(), runs.c.generation.desc()).limit(1)
        found = self._row(query)
        return None if found is None else run_row(found)

    def flag_states(self, run_id: str) -> dict[str, int]:
        """How many flags of a run stand in each state; empty before its release."""
        flags = flags_table("integer")
        query = sa.select(flags.c.state, sa.func.count().label("n")).where(flags.c.run_id == run_id).group_by(flags.c.state)
        return {row["state"]: row["n"] for row in self._rows(query)}

    def undo(self, run_id: str) -> Undo:
        """What an undo of the run would do, or did."""
        return undo_of(self._engine, self.run(run_id))

    def layouts(self, run_id: str) -> dict[Stage, str]:
        """Stage → the digest of its layout, as it was fixed."""
        found = self._rows(sa.select(stages.c.stage, stages.c.layout_digest).where(stages.c.run_id == run_id))
        return {Stage(row["stage"]): row["layout_digest"] for row in found}

    def outputs(self, run_id: str) -> Iterator[HeldOutput]:
        """The files that a run refers to, by path; a page at a time."""
        query = (
            sa.select(outputs.c.path, outputs.c.sha256, outputs.c.n_bytes)
            .join(run_outputs, run_outputs.c.path == outputs.c.path)
            .where(run_outputs.c.run_id == run_id)
            .order_by(outputs.c.path)
            .limit(_PAGE)
        )
        rows = self._rows(query)
        while rows:
            yield from (HeldOutput(**row) for row in rows)
            rows = self._rows(query.where(outputs.c.path > rows[-1]["path"]))

    def flags(self, run_id: str) -> Iterator[HeldFlag]:
        """All flags of a run, by queue and account id; a page at a time."""
        table = flags_table("raw")
        query = sa.select(table).where(table.c.run_id == run_id).order_by(table.c.queue, table.c.account_id).limit(_LONG_PAGE)
        rows = self._rows(query)
        while rows:
            yield from map(held_flag, rows)
            queue, last = rows[-1]["queue"], rows[-1]["account_id"]
            after = (table.c.queue > queue) | ((table.c.queue == queue) & (table.c.account_id > last))
            rows = self._rows(query.where(after))

    def audit(self, run_id: str | None = None) -> Iterator[tuple[AuditEntry, str]]:
        """The audit trail, or what it says of one run: each entry and the digest that is held for it, in order."""
        last = 0
        while True:
            page = sa.select(audit).where(audit.c.number > last).order_by(audit.c.number).limit(_LONG_PAGE)
            rows = self._rows(page if run_id is None else page.where(audit.c.run_id == run_id))
            for row in rows:
                last = row["number"]
                yield AuditEntry(**{name: row[name] for name in AuditEntry.model_fields}), row["digest"]
            if not rows:
                return

    def audit_head(self) -> tuple[int, str]:
        """Number and digest of the newest entry of the trail; 0 before there is any."""
        row = self._row(sa.select(audit_head))
        return (0, "") if row is None else (row["number"], row["digest"])

    def audit_key(self) -> bytes:
        """The key under which the trail names accounts."""
        return held_key(self._folder)

    def is_done(self, partition: Partition) -> bool:
        """Whether a committed receipt stands at that partition's address, with its files."""
        done = read(self._engine, lambda connection: done_before(connection, self._folder, partition, hashed=True), where="store")
        return done is not None

    def sweeps(self, name: str) -> tuple[SweepRow, ...]:
        """Sweeps of a spec and their runs, by as-of, then by when the run was made."""
        query = (
            sa.select(sweeps.c.as_of, sweeps.c.plan_digest, runs.c.run_id, runs.c.state, runs.c.released_at)
            .select_from(sweeps.outerjoin(runs, runs.c.plan_digest == sweeps.c.plan_digest))
            .where(sweeps.c.name == name)
            .order_by(sweeps.c.as_of, runs.c.created_at, runs.c.generation)
        )
        return tuple(
            SweepRow(
                as_of=from_microseconds(row["as_of"]),
                plan_digest=row["plan_digest"],
                run_id=row["run_id"],
                state=row["state"],
                released_at=moment(row["released_at"]),
            )
            for row in self._rows(query)
        )

    def past_flags(self, queue: str, *, but_not_of: RunRow) -> Iterator[PastFlag]:
        """Every flag of the queue that a released run opened and no undo withdraws, by account id then opened_at.

        Not those of the run, nor of others of its spec for its last as-of.
        """
        return past_flags(self._rows, queue, but_not_of)

    def clock(self) -> datetime:
        """What time it is by the database."""
        (row,) = self._rows(sa.select(self._now.label("now")))
        found = moment(row["now"])
        assert found is not None
        return found

    def suppressions(self, queue: str) -> tuple[Suppression, ...]:
        """Every suppression of the queue there ever was, by scope, subject and begin."""
        key = (suppressions.c.scope, suppressions.c.subject, suppressions.c.begins_at)
        return tuple(map(suppression, self._rows(sa.select(suppressions).where(suppressions.c.queue == queue).order_by(*key))))

    def reviewed(self, wanted: Wanted, *, limit: int) -> tuple[Reviewed, ...]:
        """Flags as the desk holds them: those before the reviewers best first, or in the states that are asked for."""
        keys = read(self._engine, lambda connection: chosen(connection, self._now, wanted, limit), where="store")
        return read(self._engine, lambda connection: shown(connection, self._now, keys), where="store")

    def all_reviewed(self, wanted: Wanted) -> Iterator[tuple[Reviewed, ...]]:
        """The same without a limit, some thousand at a time: those that are chosen now, as they stand when they come."""
        keys = read(self._engine, lambda connection: chosen(connection, self._now, wanted, None), where="store")
        for first in range(0, len(keys), _PAGE):
            yield read(self._engine, partial(shown, now=self._now, keys=keys[first : first + _PAGE]), where="store")

    def account_flags(self, queue: str, account_id: AccountId) -> tuple[Reviewed, ...]:
        """Every flag of an account in a queue, with evidence and decisions, by when it opened."""
        try:
            held = stored_id(account_id, LARGEST_IN_MYSQL)
        except Refused:
            return ()
        return read(self._engine, lambda connection: of_account(connection, self._now, queue, held), where="store")

    def account_events(self, queue: str, account_id: AccountId) -> tuple[QueueEvent, ...]:
        """What happened to an account's flags in a queue, by number."""
        try:
            held = stored_id(account_id, LARGEST_IN_MYSQL)
        except Refused:
            return ()
        return read(self._engine, lambda connection: events_of(connection, queue, held), where="store")

    def decided_labels(self, queue: str) -> Iterator[tuple[AccountId, bool, datetime]]:
        """What people decided in a queue, by account and time: confirmed (True) or cleared (False)."""
        return decided_labels(self._rows, queue)

    def released_as(self, run_id: str) -> dict[str, int]:
        """How many flags of a run opened, were evidence on another, or were kept from what a person had decided."""
        flags = flags_table("raw")
        query = sa.select(flags.c.released_as, sa.func.count().label("n")).where(flags.c.run_id == run_id)
        return {row["released_as"]: row["n"] for row in self._rows(query.group_by(flags.c.released_as))}

    def misstated(self, run_id: str) -> int:
        """How many flags of a run stand otherwise than claims and dispositions say."""
        return int(self._rows(misstated(run_id))[0]["n"])

    def queue_names(self) -> tuple[str, ...]:
        """The queues that flags were released into, by name."""
        return tuple(row["queue"] for row in self._rows(sa.select(queues.c.queue).order_by(queues.c.queue)))

    def events(self, after: int, *, limit: int) -> tuple[QueueEvent, ...]:
        """Changes of flags after that number, in order: numbers have no gap, and what has come never changes."""
        return read(self._engine, lambda connection: events_after(connection, after, limit), where="store")

    def id_kind(self) -> IdKind:
        """The kind of account ids this store was made for."""
        return read(self._engine, kind_of, where="store")

    def flags_of(self, account_id: AccountId) -> tuple[FlagRow, ...]:
        """Every flag of released runs about an account, by as-of; none for an id that no flag can have."""
        try:
            held = stored_id(account_id, LARGEST_IN_MYSQL)
        except Refused:
            return ()
        flags = flags_table("string" if isinstance(account_id, str) else "integer")
        query = (
            sa.select(flags, runs.c.released_at)
            .select_from(flags.join(runs, runs.c.run_id == flags.c.run_id))
            .where(flags.c.account_id == held, runs.c.released_at.is_not(None))
            .order_by(flags.c.as_of, flags.c.queue, flags.c.run_id)
        )
        return tuple(flag_row(row) for row in self._rows(query))

    def queue(self, queue: str | None, *, limit: int) -> tuple[FlagRow, ...]:
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
        return tuple(flag_row(row) for row in self._rows(query))
