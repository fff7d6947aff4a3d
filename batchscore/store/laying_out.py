"""Layouts: a stage's partitions are fixed once; those whose address was done before have the receipt that stands there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from batchscore.command import command
from batchscore.digest import digest_of
from batchscore.errors import CommitConflict
from batchscore.plan import Partition, Stage
from batchscore.ports import RunHandle
from batchscore.receipt import Output, Receipt
from batchscore.store.committing import accept_receipts, some_at_a_time
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
            remedy=command("status", run.run_id, run.store),
        )
    connection.execute(stages.insert().values(run_id=run.run_id, stage=stage.value, layout_digest=layout, laid_out_at=at))
    if laid_out:
        connection.execute(partitions.insert(), [_planned(run, partition, at) for partition in laid_out])
    accept_receipts(connection, run, reused, at)


def all_done_before(connection: sa.Connection, folder: Path, run: RunHandle, laid_out: Sequence[Partition]) -> list[Receipt]:
    """Receipts that can be taken as they are. A run that is run again trusts no file of the store unseen."""
    again = connection.execute(sa.select(runs.c.generation).where(runs.c.run_id == run.run_id)).scalar_one() > 1
    return done_before(connection, folder, laid_out, hashed=again)


def done_before(connection: sa.Connection, folder: Path, laid_out: Sequence[Partition], *, hashed: bool) -> list[Receipt]:
    """For each partition that was done before, the newest receipt that any run committed for its address, if its files are whole.

    One that was made with other libraries than its address says, since a person accepted them, serves its own run alone.
    Sizes are compared always, their bytes where ``hashed``: whoever runs a plan again may do so because a file is damaged.
    """
    found: list[Receipt] = []
    for some in some_at_a_time(laid_out):
        held: dict[str, list[str]] = {}
        for row in connection.execute(_newest([partition.address for partition in some])):
            held.setdefault(row.address, []).append(row.receipt)
        for partition in some:
            tried = map(Receipt.model_validate_json, held.get(partition.address, ()))
            whole = next((receipt for receipt in tried if _are_whole(receipt.outputs, folder, hashed=hashed)), None)
            if whole is not None:
                found.append(whole.model_copy(update={"stage": partition.stage, "number": partition.number}))
    return found


def _newest(addresses: list[str]) -> sa.Select[Any]:
    """Addresses and receipts, the newest `_RECEIPTS_TRIED` of each address, newest first."""
    of_no_world = sa.exists().where(acceptances.c.run_id == partitions.c.run_id, acceptances.c.from_epoch <= partitions.c.epoch)
    newest_first = partitions.c.updated_at.desc()
    nth = sa.func.row_number().over(partition_by=partitions.c.address, order_by=newest_first).label("nth")
    keys = partitions.c.run_id, partitions.c.stage, partitions.c.number
    committed = partitions.c.address.in_(addresses), partitions.c.state == "committed", ~of_no_world
    ranked = sa.select(*keys, nth).where(*committed).subquery()  # receipts are long: they are fetched for the few alone
    same = sa.and_(*(key == ranked.c[key.name] for key in keys))
    query = sa.select(partitions.c.address, partitions.c.receipt).join(ranked, same)
    return query.where(ranked.c.nth <= _RECEIPTS_TRIED).order_by(ranked.c.nth)


def _are_whole(files: Iterable[Output], folder: Path, *, hashed: bool) -> bool:
    return all(_is_whole(folder / output.path, output, hashed=hashed) for output in files)


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
