"""Commits: the first receipt of each partition is accepted, with the files it names; a second must have the same content.

A commit is as many statements for many receipts as for one: on MySQL each is a journey, and the driver waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from batchscore.command import command
from batchscore.database import insert_missing
from batchscore.errors import CommitConflict, RunFailed
from batchscore.failpoints import Point, reach
from batchscore.plan import Stage
from batchscore.ports import RunHandle
from batchscore.receipt import Output, Receipt
from batchscore.store.tables import outputs, partitions, run_outputs

PER_STATEMENT: Final = 200  # partitions or files that one speaks of
_STATEMENT_CHARS: Final = 200_000  # of receipts in one: a packet of 1 MB holds them, at four bytes each

T = TypeVar("T")


def new_receipts(
    connection: sa.Connection, run: RunHandle, receipts: Sequence[Receipt], now: sa.ColumnElement[Any]
) -> tuple[list[Receipt], float]:
    """Those of ``receipts`` whose partition has none yet, each partition once; and ``now``, in seconds since 1970.

    That of a partition that was quarantined meanwhile (a zombie's) is passed over: a run never takes back what it has
    told. Of two attempts at a live table, which may have changed in between, the first counts.

    Raises:
        CommitConflict: a receipt for a partition, or an address, that this run does not have.
        RunFailed: ``nondeterministic``: another receipt with other content stands.
    """
    rows = _rows_of(connection, run, receipts, now)
    new: dict[tuple[Stage, int], Receipt] = {}
    for receipt in receipts:
        place = receipt.stage, receipt.number
        standing = _standing(rows.get(place), run, receipt)
        earlier = new.get(place) or standing
        if earlier is None:
            new[place] = receipt
        elif isinstance(earlier, Receipt) and not receipt.live and earlier.content() != receipt.content():
            raise RunFailed(
                "nondeterministic",
                f"two attempts at {receipt.stage} {receipt.number} gave different bytes",
                where=f"run {run.run_id}",
                remedy=f"compare the workers' hardware and libraries: {command('status', run.run_id, run.store)}",
            )
    return list(new.values()), max((row.now for row in rows.values()), default=0.0)


def accept_receipts(connection: sa.Connection, run: RunHandle, receipts: Sequence[Receipt], at: float) -> None:
    """Commit the partitions of ``receipts`` at that moment (seconds since 1970), and let the run refer to their files."""
    if not receipts:
        return
    for stage in dict.fromkeys(receipt.stage for receipt in receipts):
        texts = {receipt.number: receipt.model_dump_json() for receipt in receipts if receipt.stage is stage}
        for some in _statements(texts):
            of_stage = (partitions.c.run_id == run.run_id) & (partitions.c.stage == stage.value)
            these = partitions.update().where(of_stage, partitions.c.number.in_(list(some)))
            receipt_of = sa.case(some, value=partitions.c.number)
            connection.execute(these.values(state="committed", receipt=receipt_of, epoch=run.epoch, updated_at=at))
    reach(Point.RECEIPTS_ACCEPTING)
    in_order = sorted(((receipt, output) for receipt in receipts for output in receipt.outputs), key=lambda pair: pair[1].path)
    written = {output.path: (receipt, output) for receipt, output in in_order}
    insert_missing(connection, outputs, [_output_values(receipt, output, at) for receipt, output in written.values()])
    insert_missing(connection, run_outputs, [{"run_id": run.run_id, "path": path} for path in written])


def some_at_a_time(things: Sequence[T]) -> Iterator[Sequence[T]]:
    """In order, as many as one statement may speak of."""
    return (things[first : first + PER_STATEMENT] for first in range(0, len(things), PER_STATEMENT))


def _statements(texts: dict[int, str]) -> Iterator[dict[int, str]]:
    """Receipts by partition, as many as one statement may hold."""
    some: dict[int, str] = {}
    n_chars = 0
    for number, text in texts.items():
        if some and (len(some) == PER_STATEMENT or n_chars + len(text) > _STATEMENT_CHARS):
            yield some
            some, n_chars = {}, 0
        some[number] = text
        n_chars += len(text)
    yield some


def _rows_of(
    connection: sa.Connection, run: RunHandle, receipts: Iterable[Receipt], now: sa.ColumnElement[Any]
) -> dict[tuple[Stage, int], sa.Row[Any]]:
    """What the ledger holds for the partitions of ``receipts``, and when."""
    held: dict[tuple[Stage, int], sa.Row[Any]] = {}
    columns = partitions.c.number, partitions.c.state, partitions.c.address, partitions.c.receipt, now.label("now")
    numbers: dict[Stage, list[int]] = {}
    for receipt in receipts:
        numbers.setdefault(receipt.stage, []).append(receipt.number)
    for stage, of_stage in numbers.items():
        for some in some_at_a_time(of_stage):
            these = partitions.c.run_id == run.run_id, partitions.c.stage == stage.value, partitions.c.number.in_(some)
            query: sa.Select[Any] = sa.select(*columns).where(*these)
            held |= {(stage, row.number): row for row in connection.execute(query)}
    return held


def _standing(row: sa.Row[Any] | None, run: RunHandle, receipt: Receipt) -> Receipt | str | None:
    """What the ledger holds for a receipt's partition: a receipt, ``quarantined``, or nothing yet."""
    if row is None or row.address != receipt.address:
        raise CommitConflict(
            "commit_conflict",
            f"this run has no {receipt.stage} {receipt.number} at that address",
            where=f"run {run.run_id}",
            remedy=command("status", run.run_id, run.store),
        )
    if row.state == "committed":
        return Receipt.model_validate_json(row.receipt)
    return None if row.state == "planned" else str(row.state)


def _output_values(receipt: Receipt, output: Output, at: float) -> dict[str, Any]:
    return {"path": output.path, "address": receipt.address, "role": output.role, "sha256": output.sha256,
            "n_bytes": output.n_bytes, "created_at": at}  # fmt: skip
