"""What the attempts of a stage left, by table or as-of: files, keys, rows of the decision. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.decide.table import FLAG, of_standing, whole
from batchscore.features.accounts import Accounts
from batchscore.features.frame import population
from batchscore.files import verified
from batchscore.key_index import open_index
from batchscore.keys import ACCOUNT_ID, in_range, key_digest
from batchscore.layout.definitions import Definitions
from batchscore.plan import FreezeEvents, FreezeSql, Merge, Partition, Reference, Rollup, Score
from batchscore.receipt import Output, Receipt
from batchscore.report.proof import KeysSetAside, keys_from_footer


def outputs_of(receipts: Iterable[Receipt], role: str) -> list[Output]:
    """The files of that role, in the order of the receipts."""
    return [output for receipt in receipts for output in receipt.outputs if output.role == role]


def rollups_of(
    partitions: Iterable[Partition], receipts: Iterable[Receipt], role: Literal["rollup", "days"] = "rollup"
) -> dict[str, list[Output]]:
    """Table → the rollups (or the day counts) that a rollup or merge stage wrote of it."""
    table_of = {partition.number: partition.work.table for partition in partitions if isinstance(partition.work, (Rollup, Merge))}
    found: dict[str, list[Output]] = {}
    for receipt in receipts:
        found.setdefault(table_of[receipt.number], []).extend(outputs_of([receipt], role))
    return found


def frozen_events(partitions: Iterable[Partition], receipts: Iterable[Receipt]) -> dict[str, list[Output]]:
    """Table → the files that a freeze left of the events of a live table, by range."""
    table_of = {partition.number: partition.work.table for partition in partitions if isinstance(partition.work, FreezeEvents)}
    found: dict[str, list[Output]] = {}
    for receipt in receipts:
        if receipt.number in table_of:
            found.setdefault(table_of[receipt.number], []).extend(outputs_of([receipt], "events"))
    return found


def scores_of(partitions: Iterable[Partition], receipts: Iterable[Receipt]) -> dict[datetime, list[Output]]:
    """As-of → the files that hold its scores. A partition serves a few as-ofs of many: no file is opened for the others."""
    as_ofs = {partition.number: partition.work.as_ofs for partition in partitions if isinstance(partition.work, Score)}
    found: dict[datetime, list[Output]] = {}
    for receipt in receipts:
        for as_of in as_ofs[receipt.number]:
            found.setdefault(as_of, []).extend(outputs_of([receipt], "scores"))
    return found


def with_merged(
    rollups: Mapping[str, Sequence[Output]], merges: Iterable[Partition], merged: Mapping[str, Sequence[Output]]
) -> dict[str, list[Output]]:
    """The rollups that are to be read: those of the merge stage in the place of those it brought together.

    By path: files of two tables may hold the same bytes.
    """
    gone = {Path(held.path).name for merge in merges if isinstance(merge.work, Merge) for held in merge.work.rollups}
    return {
        table: [*(output for output in outputs if Path(output.path).name not in gone), *merged.get(table, ())]
        for table, outputs in rollups.items()
    }


def decided_rows(decision: Reference, *standings: str) -> pa.Table:
    """Rows of a frozen decision, whatever release wrote it: those of the ``standings``, or its flags."""
    held = whole(pq.read_table(verified(decision.path, decision.sha256)))
    return of_standing(held, *(standings or (FLAG,)))


def scored_keys(definitions: Definitions, receipt: Receipt) -> Receipt:
    """A score receipt with the key digests in its file's footer: ``scored 2002-08-19T00:00:00+00:00`` and so on.

    Also ``outside``, ``repeated``, ``unscoreable`` and ``rejected``; a name that is absent is the empty set. An earlier release
    wrote them to a file of their own, names beside digests.
    """
    for output in outputs_of([receipt], "keys"):
        held = pq.read_table(verified(str(definitions.store / output.path), output.sha256))
        return receipt.model_copy(update={"keys": dict(zip(held["name"].to_pylist(), held["keys"].to_pylist(), strict=True))})
    (output,) = outputs_of([receipt], "scores")
    footer = pq.read_metadata(verified(str(definitions.store / output.path), output.sha256)).metadata
    return receipt.model_copy(update={"keys": keys_from_footer(footer)})


def keys_set_aside(definitions: Definitions, work: Score, as_of: datetime) -> KeysSetAside:
    """The keys of a partition's range at ``as_of``, read again: what quarantine sets aside."""
    declared = definitions.feature_set.accounts
    index = open_index(str(definitions.store), definitions.feature_set.account_id, work.snapshots)
    rows = index.read(work.keys, columns=[ACCOUNT_ID, *declared.times])
    accounts = Accounts.of(rows, declared)
    inside = population(accounts.at(as_of), as_of)
    return KeysSetAside(
        planned=key_digest(accounts.ids.filter(pa.array(inside))),
        outside=key_digest(accounts.ids.filter(pa.array(~inside))),
        repeated=key_digest(accounts.repeated),
    )


def score_work(partition: Partition) -> Score:
    """What a partition of scores, or of a shadow's, is to do."""
    assert isinstance(partition.work, Score)
    return partition.work


def live_table(partition: Partition) -> str | None:
    """The live table that a partition reads; None when it reads none."""
    return partition.work.table if isinstance(partition.work, (FreezeSql, FreezeEvents)) else None


def flags_of(decided: pa.Table, work: Score) -> pa.Table:
    """The rows of a decision that a score partition made: its key range and its as-ofs."""
    as_ofs = pa.array(work.as_ofs, type=decided.schema.field("as_of").type)
    mask = pc.is_in(decided["as_of"], value_set=as_ofs)
    in_keys = in_range(decided[ACCOUNT_ID], work.keys.low, work.keys.high)
    return decided.filter(mask if in_keys is None else pc.and_(mask, in_keys))
