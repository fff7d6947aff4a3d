"""The frozen rows of one account: where each lies, and a digest of what stands in it. Reads only.

A row's digest is of its values, not of how a file holds them: the same row in another snapshot, cut or compressed another way,
has the same digest. It is the SHA-256 of canonical JSON of (column, Arrow type, value) in the order of names; a float stands as
its hexadecimal text, bytes as hex, decimals and times as text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.digest import digest_of
from batchscore.errors import PartitionError
from batchscore.features.definitions import EPOCH
from batchscore.features.feature_set import FeatureSet
from batchscore.features.tables import VALID_FROM
from batchscore.files import verified
from batchscore.flag import AccountId
from batchscore.key_index import KeyIndex, open_index
from batchscore.keys import ACCOUNT_ID
from batchscore.plan import Score
from batchscore.report.explanation import FrozenRow


def frozen_rows(work: Score, store: str, feature_set: FeatureSet, account_id: AccountId, as_of: datetime) -> Iterator[FrozenRow]:
    """The account's rows of the snapshots, then those of each table's rollups by when they happened.

    Raises:
        PartitionError: ``input_digest_mismatch``, ``file_missing`` or ``input_corrupt``.
    """
    kind = feature_set.account_id
    table = feature_set.accounts.table
    for row, values in _rows(open_index(store, kind, work.snapshots), work, account_id, table):
        began = values.get(VALID_FROM)
        yield row.model_copy(update={"known_at": began, "counts": began is None or began < as_of})
    for name, index in sorted(work.rollups.items()):
        reach = feature_set.reach(name)
        told = [
            _told(row, values, feature_set.grain, as_of, reach)
            for row, values in _rows(open_index(store, kind, index), work, account_id, name)
        ]
        yield from sorted(told, key=lambda row: (row.happened_at, row.known_at, row.file, row.row))


def row_digest(row: pa.Table) -> str:
    """The digest of a table of one row."""
    (values,) = row.to_pylist()
    return digest_of(sorted([field.name, str(field.type), _plain(values[field.name])] for field in row.schema))


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, float):
        return "nan" if math.isnan(value) else value.hex()
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    return str(value) if isinstance(value, Decimal) else value


def _rows(index: KeyIndex, work: Score, account_id: AccountId, table: str) -> Iterator[tuple[FrozenRow, dict[str, Any]]]:
    among = pa.array([account_id], index.schema.field(ACCOUNT_ID).type)
    for (path, sha256), groups in sorted(index.files(work.keys, among).items()):
        file = verified(str(index.store / path), sha256)
        for group in sorted(groups):
            try:
                with pq.ParquetFile(file, page_checksum_verification=True) as opened:
                    held = opened.read_row_group(group, use_threads=False)
            except (OSError, pa.ArrowException) as error:
                what = "a page does not decode"
                raise PartitionError("input_corrupt", what, where=file.name, remedy="restore the file") from error
            mine = pc.equal(held[ACCOUNT_ID].cast(among.type), among[0]).to_numpy()
            for number in np.flatnonzero(mine).tolist():
                row = held.slice(number, 1)
                said = FrozenRow(table=table, file=path, file_sha256=sha256, row_group=group, row=number, sha256=row_digest(row))
                yield said, row.to_pylist()[0]


def _told(row: FrozenRow, values: dict[str, Any], grain: timedelta, as_of: datetime, reach: timedelta | None) -> FrozenRow:
    happened, known = (EPOCH + values[name] * grain for name in ("event_grain", "known_grain"))
    in_reach = reach is None or happened >= as_of - reach
    counts = happened < as_of and known < as_of and in_reach
    return row.model_copy(update={"happened_at": happened, "known_at": known, "n_events": values["n"], "counts": counts})
