"""Layouts: a stage's partitions are fixed once; those whose address was done before have the receipt that stands there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from batchscore.digest import digest_of
from batchscore.errors import CommitConflict
from batchscore.plan import Partition, Stage
from batchscore.ports import RunHandle
from batchscore.receipt import Output, Receipt
from batchscore.store.committing import accept_receipts
from batchscore.store.tables import acceptances, partitions, runs, stages

_RECEIPTS_TRIED: Final = 4  # of one address: each is of a run that did it anew


def fix_layout(
    connection: sa.Connection,
    run: RunHandle,
    stage: Stage,
    laid_out: Sequence[Partition],
    reused: Sequence[Receipt],
    at: float,
) -> None:
    """Let the stage have these partitions from ``at`` on (seconds since 1970), with the receipts in ``reused``; repeatable.

    Raises:
        CommitConflict: the stage is laid out already, otherwise.
    """
    layout = digest_of([(partition.number, partition.address) for partition in laid_out])
    query = sa.select(stages.c.layout_digest).where(stages.c.run_id == run.run_id, stages.c.stage == stage.value)
    found = connection.execute(query).scalar_one_or_none()
    if found == layout:
        return
    if found is not None:
        raise CommitConflict(
            "commit_conflict",
            f"{stage} is laid out already, in other partitions",
            where=f"run {run.run_id}",
            remedy=f"batchscore status {run.run_id}",
        )
    connection.execute(stages.insert().values(run_id=run.run_id, stage=stage.value, layout_digest=layout, laid_out_at=at))
    if laid_out:
        connection.execute(partitions.insert(), [_planned(run, partition, at) for partition in laid_out])
    accept_receipts(connection, run, reused, at)


def all_done_before(connection: sa.Connection, folder: Path, run: RunHandle, laid_out: Sequence[Partition]) -> list[Receipt]:
    """Receipts that can be taken as they are. A run that is run again trusts no file of the store unseen."""
    again = connection.execute(sa.select(runs.c.generation).where(runs.c.run_id == run.run_id)).scalar_one() > 1
    found = (done_before(connection, folder, partition, hashed=again) for partition in laid_out)
    return [receipt for receipt in found if receipt is not None]


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


def _planned(run: RunHandle, partition: Partition, at: float) -> dict[str, Any]:
    return {
        "run_id": run.run_id, "stage": partition.stage.value, "number": partition.number, "address": partition.address,
        "state": "planned", "n_rows": partition.n_rows, "n_failures": 0, "n_suspicions": 0, "reason": "", "message": "",
        "epoch": run.epoch, "updated_at": at, "work": partition.model_dump_json(by_alias=True), "receipt": None,
    }  # fmt: skip
