"""Commits: the first receipt of each partition is accepted, with the files it names; a second must have the same content.

A commit is as many statements for many receipts as for one: on MySQL each is a journey, and the driver waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from batchscore.errors import CommitConflict, RunFailed
from batchscore.failpoints import Point, reach
from batchscore.plan import Stage
from batchscore.ports import RunHandle
from batchscore.receipt import Output, Receipt
from batchscore.store.tables import outputs, partitions, run_outputs

PER_STATEMENT: Final = 200  # partitions or files that one speaks of
_STATEMENT_CHARS: Final = 200_000  # of receipts in one: a packet of 1 MB holds them, at four bytes each

T = TypeVar("T")


def new_receipts(connection: sa.Connection, run: RunHandle, receipts: Sequence[Receipt]) -> list[Receipt]:
    """Those of ``receipts`` whose partition has none yet, each partition once.

    That of a partition that was quarantined meanwhile (a zombie's) is passed over: a run never takes back what it has
    told. Of two attempts at a live table, which may have changed in between, the first counts.

    Raises:
        CommitConflict: a receipt for a partition, or an address, that this run does not have.
        RunFailed: ``nondeterministic``: another receipt with other content stands.
    """
    rows = _rows_of(connection, run, receipts)
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
                remedy="compare the workers' hardware and libraries: batchscore status",
            )
    return list(new.values())


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
    known = _known(connection, run, list(written))
    fresh = [_output_values(receipt, output, at) for path, (receipt, output) in written.items() if path not in known]
    if fresh:
        connection.execute(outputs.insert(), fresh)
    references = [{"run_id": run.run_id, "path": path} for path in written if not known.get(path)]
    if references:
        connection.execute(run_outputs.insert(), references)


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


def _rows_of(connection: sa.Connection, run: RunHandle, receipts: Iterable[Receipt]) -> dict[tuple[Stage, int], sa.Row[Any]]:
    """What the ledger holds for the partitions of ``receipts``."""
    held: dict[tuple[Stage, int], sa.Row[Any]] = {}
    columns = partitions.c.number, partitions.c.state, partitions.c.address, partitions.c.receipt
    numbers: dict[Stage, list[int]] = {}
    for receipt in receipts:
        numbers.setdefault(receipt.stage, []).append(receipt.number)
    for stage, of_stage in numbers.items():
        for some in some_at_a_time(of_stage):
            these = partitions.c.run_id == run.run_id, partitions.c.stage == stage.value, partitions.c.number.in_(some)
            held |= {(stage, row.number): row for row in connection.execute(sa.select(*columns).where(*these))}
    return held


def _standing(row: sa.Row[Any] | None, run: RunHandle, receipt: Receipt) -> Receipt | str | None:
    """What the ledger holds for a receipt's partition: a receipt, ``quarantined``, or nothing yet."""
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


def _known(connection: sa.Connection, run: RunHandle, paths: Sequence[str]) -> dict[str, bool]:
    """Which of the files are in the table of files already, each with whether the run refers to it."""
    mine = (run_outputs.c.path == outputs.c.path) & (run_outputs.c.run_id == run.run_id)
    query = sa.select(outputs.c.path, run_outputs.c.run_id).select_from(outputs.outerjoin(run_outputs, mine))
    found: dict[str, bool] = {}
    for some in some_at_a_time(paths):
        rows = connection.execute(query.where(outputs.c.path.in_(some)))
        found |= {row.path: row.run_id is not None for row in rows}
    return found
