"""How far a run is: its stages, partitions, receipts, failures and files, as the ledger holds them. Reads only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import sqlalchemy as sa
from sqlalchemy import RowMapping

from batchscore.plan import Partition, Stage
from batchscore.ports import FailureRow, HeldOutput, QuarantinedRow, StageRow
from batchscore.receipt import Receipt
from batchscore.store.paging import paged
from batchscore.store.rows import RowsOf, moment, partition_of
from batchscore.store.tables import attempts, outputs, partitions, run_outputs, stages

_PAGE: Final = 1_000


def stages_of(rows_of: RowsOf, run_id: str) -> tuple[StageRow, ...]:
    """Progress of each stage laid out so far, in order; one aggregate query, no receipt is parsed."""

    def total(value: sa.ColumnElement[int], *where: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
        return sa.func.coalesce(sa.func.sum(sa.case((sa.and_(*where), value), else_=0)), 0)

    one = sa.literal_column("1", sa.Integer)
    committed = partitions.c.state == "committed"
    of_stage = (partitions.c.run_id == stages.c.run_id) & (partitions.c.stage == stages.c.stage)
    driven = committed & (partitions.c.updated_at > stages.c.laid_out_at)  # the others were there when the stage was laid out
    drivers = (
        sa.select(
            stages.c.stage,
            sa.func.min(partitions.c.epoch).label("first_epoch"),
            sa.func.max(partitions.c.epoch).label("last_epoch"),
        )
        .select_from(stages.join(partitions, of_stage))
        .where(stages.c.run_id == run_id, driven)
        .group_by(stages.c.stage)
        .subquery()
    )
    newest = driven & (partitions.c.epoch == drivers.c.last_epoch)
    query = (
        sa.select(
            stages.c.stage,
            stages.c.laid_out_at,
            sa.func.count(partitions.c.number).label("n_partitions"),
            total(one, committed).label("n_committed"),
            total(one, partitions.c.state == "quarantined").label("n_quarantined"),
            sa.func.coalesce(sa.func.sum(partitions.c.n_rows), 0).label("n_rows"),
            total(partitions.c.n_rows, committed).label("n_rows_committed"),
            sa.func.max(partitions.c.updated_at).label("updated_at"),
            drivers.c.first_epoch,
            drivers.c.last_epoch,
            total(one, newest).label("n_newest"),
            total(partitions.c.n_rows, newest).label("n_rows_newest"),
            sa.func.min(sa.case((newest, partitions.c.updated_at))).label("newest_from"),
            sa.func.max(sa.case((newest, partitions.c.updated_at))).label("newest_until"),
        )
        .select_from(stages.outerjoin(partitions, of_stage).outerjoin(drivers, drivers.c.stage == stages.c.stage))
        .where(stages.c.run_id == run_id)
        .group_by(stages.c.stage, stages.c.laid_out_at, drivers.c.first_epoch, drivers.c.last_epoch)
    )
    found = {row["stage"]: row for row in rows_of(query)}
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
            rows_per_s=_pace(row),
        )
        for stage in Stage
        if (row := found.get(stage.value)) is not None
    )


def _pace(row: RowMapping) -> float | None:
    """Rows a second of the newest driver; None as long as that is not known.

    Of a driver that came later nobody knows when it began: its first partition only says from when on.
    """
    n, n_rows = float(row["n_newest"]), float(row["n_rows_newest"])  # MySQL adds up as DECIMAL
    if not n:
        return None
    since = row["laid_out_at"]
    if row["first_epoch"] != row["last_epoch"]:
        n_rows, since = n_rows * (n - 1) / n, row["newest_from"]
    seconds = row["newest_until"] - since
    return n_rows / seconds if seconds > 0 and n_rows else None


def layouts_of(rows_of: RowsOf, run_id: str) -> dict[Stage, str]:
    """Stage → the digest of its layout, as it was fixed."""
    found = rows_of(sa.select(stages.c.stage, stages.c.layout_digest).where(stages.c.run_id == run_id))
    return {Stage(row["stage"]): row["layout_digest"] for row in found}


def partitions_of(rows_of: RowsOf, run_id: str, stage: Stage, *, only: str | None = None) -> tuple[Partition, ...]:
    """Partitions of a stage, all or those in one state, by number; empty before its layout."""
    query = sa.select(partitions.c.work).where(partitions.c.run_id == run_id, partitions.c.stage == stage.value)
    if only is not None:
        query = query.where(partitions.c.state == only)
    return tuple(map(partition_of, rows_of(query.order_by(partitions.c.number))))


def places_of(rows_of: RowsOf, run_id: str, stage: Stage) -> tuple[tuple[int, str], ...]:
    """(number, address) of each partition of a stage, by number, as later runs look for them."""
    query = sa.select(partitions.c.number, partitions.c.address).where(partitions.c.run_id == run_id)
    found = rows_of(query.where(partitions.c.stage == stage.value).order_by(partitions.c.number))
    return tuple((row["number"], row["address"]) for row in found)


def receipts_of(rows_of: RowsOf, run_id: str, stage: Stage) -> Iterator[Receipt]:
    """Committed receipts, by partition number; a page at a time, so that a caller may take its time."""
    of_stage = (partitions.c.run_id == run_id) & (partitions.c.stage == stage.value)
    query = sa.select(partitions.c.number, partitions.c.receipt).where(of_stage, partitions.c.state == "committed")
    for row in paged(rows_of, query, (partitions.c.number,), _PAGE):
        yield Receipt.model_validate_json(row["receipt"])


def reused_of(rows_of: RowsOf, run_id: str) -> frozenset[tuple[Stage, int]]:
    """Partitions whose receipt an earlier run had: they were committed in the transaction that laid their stage out."""
    query = (
        sa.select(partitions.c.stage, partitions.c.number)
        .join(stages, (stages.c.run_id == partitions.c.run_id) & (stages.c.stage == partitions.c.stage))
        .where(partitions.c.run_id == run_id, partitions.c.state == "committed")
        .where(partitions.c.updated_at == stages.c.laid_out_at)
    )
    return frozenset((Stage(row["stage"]), row["number"]) for row in rows_of(query))


def quarantined_of(rows_of: RowsOf, run_id: str) -> tuple[QuarantinedRow, ...]:
    """Partitions set aside."""
    query = sa.select(partitions).where(partitions.c.run_id == run_id, partitions.c.state == "quarantined")
    found = rows_of(query.order_by(partitions.c.stage, partitions.c.number))
    return tuple(
        QuarantinedRow(stage=Stage(row["stage"]), number=row["number"], reason=row["reason"], message=row["message"])
        for row in found
    )


def failures_of(rows_of: RowsOf, run_id: str) -> tuple[FailureRow, ...]:
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
    found = [FailureRow.model_validate(dict(row)) for row in rows_of(query)]
    return tuple(sorted(found, key=lambda row: (list(Stage).index(row.stage), row.number)))


def outputs_of(rows_of: RowsOf, run_id: str) -> Iterator[HeldOutput]:
    """The files that a run refers to, by path; a page at a time."""
    query = (
        sa.select(outputs.c.path, outputs.c.sha256, outputs.c.n_bytes)
        .join(run_outputs, run_outputs.c.path == outputs.c.path)
        .where(run_outputs.c.run_id == run_id)
    )
    yield from (HeldOutput(**row) for row in paged(rows_of, query, (outputs.c.path,), _PAGE))
