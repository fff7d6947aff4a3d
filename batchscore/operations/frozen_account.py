"""One account of a run at one as-of, and what the run left of it. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.decide.table import flags_in, whole
from batchscore.errors import Refused
from batchscore.features.feature_set import FeatureSet
from batchscore.files import verified
from batchscore.flag import AccountId
from batchscore.keys import ACCOUNT_ID, ID_TYPES, MOMENT, IdKind, in_range
from batchscore.layout import Definitions, score_work
from batchscore.plan import KeyRange, Partition, Score, Stage
from batchscore.ports import RunRow, StoreReader
from batchscore.receipt import Receipt


@dataclass(frozen=True, slots=True)
class FrozenAccount:
    """The account, and what of the run speaks of it."""

    row: RunRow
    reader: StoreReader
    definitions: Definitions
    account_id: AccountId
    ids: pa.Array  # of the account alone
    as_of: datetime
    decided: pa.Table
    partition: Partition
    receipt: Receipt | None  # None: the partition was set aside

    @classmethod
    def of(cls, row: RunRow, reader: StoreReader, account_id: AccountId, as_of: datetime | None) -> FrozenAccount:
        """Of a run that has decided; without ``as_of`` at the newest that selected the account, else the last.

        Raises:
            Refused: ``account_unknown``: it is no id of the run's kind; ``spec_invalid``: ``as_of`` is none of the run's.
        """
        definitions = Definitions.of(row.plan)
        kind = definitions.feature_set.account_id
        ids = id_array(kind, account_id)
        assert row.decision is not None, "asked for before"
        decided = whole(pq.read_table(verified(row.decision.path, row.decision.sha256))).replace_schema_metadata(None)
        moment = _chosen(row, decided, ids, as_of)
        partition = _partition_of(reader.partitions(row.run_id, Stage.SCORE), moment, ids)
        receipts = (one for one in reader.receipts(row.run_id, Stage.SCORE) if one.number == partition.number)
        return cls(row, reader, definitions, account_id, ids, moment, decided, partition, next(receipts, None))

    @property
    def work(self) -> Score:
        """What scored the account's key range."""
        return score_work(self.partition)

    @property
    def feature_set(self) -> FeatureSet:
        """The run's, as it was frozen."""
        return self.definitions.feature_set

    @property
    def store(self) -> Path:
        """The folder of the store."""
        return self.definitions.store

    def of_me(self, receipt: Receipt, role: str) -> list[dict[str, Any]]:
        """The account's rows at the as-of in the files of a receipt."""
        wanted = [(ACCOUNT_ID, "=", self.ids[0]), ("as_of", "=", pa.scalar(self.as_of, MOMENT))]
        paths = [verified(str(self.store / out.path), out.sha256) for out in receipt.outputs if out.role == role]
        return [row for path in paths for row in pq.read_table(path, filters=wanted, use_threads=False).to_pylist()]

    def decision_row(self, decided: pa.Table) -> pa.Table:
        """The account's row of a decision; none where the policy had nothing to say of it."""
        moment = pa.scalar(self.as_of, MOMENT)
        return decided.filter(pc.and_(pc.equal(decided[ACCOUNT_ID], self.ids[0]), pc.equal(decided["as_of"], moment)))


def id_array(kind: IdKind, account_id: AccountId) -> pa.Array:
    """The id alone, of the kind's type. Raises Refused ``account_unknown`` where it is no id of this kind."""
    wanted = int if kind == "integer" else str
    if isinstance(account_id, bool) or not isinstance(account_id, wanted):
        raise unknown_account(kind)
    try:
        return pa.array([account_id], ID_TYPES[kind])
    except (OverflowError, ValueError, pa.ArrowException):  # foreign messages quote the id
        raise unknown_account(kind) from None


def unknown_account(kind: IdKind) -> Refused:
    """What is said of an id that the run has not; never the id."""
    remedy = "give the id as it stands in the accounts' table"
    return Refused("account_unknown", f"no such account was frozen for this run; ids are {kind}", where="account", remedy=remedy)


def _chosen(row: RunRow, decided: pa.Table, ids: pa.Array, as_of: datetime | None) -> datetime:
    as_ofs = row.plan.spec.as_ofs()
    if as_of is None:
        flags = flags_in(decided)
        newest: datetime | None = pc.max(flags.filter(pc.equal(flags[ACCOUNT_ID], ids[0]))["as_of"]).as_py()
        return as_ofs[-1] if newest is None else newest
    if as_of not in as_ofs:
        dates = f"{as_ofs[0]:%Y-%m-%d} … {as_ofs[-1]:%Y-%m-%d}"
        what = f"it is none of the {len(as_ofs)} as-ofs of {row.run_id}: {dates}"
        raise Refused("spec_invalid", what, where=f"as-of {as_of.isoformat()}", remedy="name one of them")
    return as_of


def _partition_of(partitions: Sequence[Partition], as_of: datetime, ids: pa.Array) -> Partition:
    """Every id that can be lies in one key range of each group of as-ofs."""
    return next(
        partition
        for partition in partitions
        if isinstance(partition.work, Score) and as_of in partition.work.as_ofs and lies_in(partition.work.keys, ids)
    )


def lies_in(keys: KeyRange, ids: pa.Array) -> bool:
    """Whether the first of ``ids`` lies in a key range."""
    mask = in_range(ids, keys.low, keys.high)
    return mask is None or bool(mask[0].as_py())
