"""Commits: the first receipt of each partition is accepted, with the files it names; a second must have the same content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from batchscore.errors import CommitConflict, RunFailed
from batchscore.failpoints import Point, reach
from batchscore.plan import Stage
from batchscore.ports import RunHandle
from batchscore.receipt import Output, Receipt
from batchscore.store.tables import outputs, partitions, run_outputs


def new_receipts(connection: sa.Connection, run: RunHandle, receipts: Sequence[Receipt]) -> list[Receipt]:
    """Those of ``receipts`` whose partition has none yet, each partition once.

    That of a partition that was quarantined meanwhile (a zombie's) is passed over: a run never takes back what it has
    told. Of two attempts at a live table, which may have changed in between, the first counts.

    Raises:
        CommitConflict: a receipt for a partition, or an address, that this run does not have.
        RunFailed: ``nondeterministic``: another receipt with other content stands.
    """
    new: dict[tuple[Stage, int], Receipt] = {}
    for receipt in receipts:
        standing = _standing(connection, run, receipt)
        earlier = new.get((receipt.stage, receipt.number)) or standing
        if earlier is None:
            new[receipt.stage, receipt.number] = receipt
        elif isinstance(earlier, Receipt) and not receipt.live and earlier.content() != receipt.content():
            raise RunFailed(
                "nondeterministic",
                f"two attempts at {receipt.stage} {receipt.number} gave different bytes",
                where=f"run {run.run_id}",
                remedy="compare the workers' hardware and libraries: batchscore status",
            )
    return list(new.values())


def accept_receipts(connection: sa.Connection, run: RunHandle, receipts: Sequence[Receipt], at: float) -> None:
    """Commit the partitions of ``receipts`` at that moment (seconds since 1970), and let the run refer to their files."""
    if not receipts:
        return
    number: sa.BindParameter[int] = sa.bindparam("p_number")
    stage: sa.BindParameter[str] = sa.bindparam("p_stage")
    accept = (
        partitions.update()
        .where(partitions.c.run_id == run.run_id, partitions.c.stage == stage, partitions.c.number == number)
        .values(state="committed", receipt=sa.bindparam("p_receipt"), epoch=run.epoch, updated_at=at)
    )
    rows = [
        {"p_number": receipt.number, "p_stage": receipt.stage.value, "p_receipt": receipt.model_dump_json()}
        for receipt in receipts
    ]
    connection.execute(accept, rows)
    reach(Point.RECEIPTS_ACCEPTING)
    in_order = sorted(((receipt, output) for receipt in receipts for output in receipt.outputs), key=lambda pair: pair[1].path)
    written = {output.path: (receipt, output) for receipt, output in in_order}
    known = _known(connection, outputs.c.path, list(written))
    fresh = [_output_values(receipt, output, at) for path, (receipt, output) in written.items() if path not in known]
    if fresh:
        connection.execute(outputs.insert(), fresh)
    mine = _known(connection, run_outputs.c.path, list(written), run_outputs.c.run_id == run.run_id)
    references = [{"run_id": run.run_id, "path": path} for path in written if path not in mine]
    if references:
        connection.execute(run_outputs.insert(), references)


def _standing(connection: sa.Connection, run: RunHandle, receipt: Receipt) -> Receipt | str | None:
    """What the ledger holds for a receipt's partition: a receipt, ``quarantined``, or nothing yet."""
    where = (
        (partitions.c.run_id == run.run_id)
        & (partitions.c.stage == receipt.stage.value)
        & (partitions.c.number == receipt.number)
    )
    query = sa.select(partitions.c.state, partitions.c.address, partitions.c.receipt).where(where)
    row = connection.execute(query).first()
    if row is None or row.address != receipt.address:
        raise CommitConflict(
            "commit_conflict",
            f"this run has no {receipt.stage} {receipt.number} at that address",
            where=f"run {run.run_id}",
            remedy=f"batchscore status {run.run_id}",
        )
    if row.state == "committed":
        return Receipt.model_validate_json(row.receipt)
    return None if row.state == "planned" else str(row.state)


def _output_values(receipt: Receipt, output: Output, at: float) -> dict[str, Any]:
    return {"path": output.path, "address": receipt.address, "role": output.role, "sha256": output.sha256,
            "n_bytes": output.n_bytes, "created_at": at}  # fmt: skip


def _known(connection: sa.Connection, column: sa.Column[Any], values: list[str], *conditions: sa.ColumnElement[bool]) -> set[str]:
    """Which of ``values`` the column holds already; asked for in bounded lists."""
    found: set[str] = set()
    for first in range(0, len(values), 500):
        query = sa.select(column).where(column.in_(values[first : first + 500]), *conditions)
        found |= set(connection.execute(query).scalars())
    return found
