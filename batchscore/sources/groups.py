"""The groups that accounts are in, in files of their own beside the snapshots: a few columns, looked up for few of many accounts.

A snapshot holds them too, among all that features read; whoever wants the groups alone would read, and hash, forty times as
much. A store that an earlier release froze has no such files: its groups are read from the snapshots, and are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.errors import PartitionError
from batchscore.features.feature_set import AccountsTable
from batchscore.files import verified, write_parquet
from batchscore.keys import ACCOUNT_ID
from batchscore.receipt import Output, Receipt

_READERS: Final = 2  # threads, each of which holds the groups of one row group


def write_groups(rows: pa.Table, accounts: AccountsTable, names: Iterable[str], store: Path, address: str) -> Output:
    """The columns ``names`` of a snapshot's rows, with their ids and times and in their order, as one row group.

    Raises:
        AttemptFailed: ``write_failed``.
    """
    table = rows.select([ACCOUNT_ID, *accounts.times, *names])
    return write_parquet([table], table.schema, store, address, "groups", group_rows=max(1, len(table)))


def groups_beside(receipts: Iterable[Receipt]) -> tuple[Output, ...] | None:
    """The files of groups that freezes left; None where some left none, as earlier releases did."""
    found: list[Output] = []
    for receipt in receipts:
        mine = [output for output in receipt.outputs if output.role == "groups"]
        if sum(output.n_rows for output in mine) != sum(o.n_rows for o in receipt.outputs if o.role == "snapshot"):
            return None
        found += mine
    return tuple(found) or None


def read_groups(store: Path, files: Sequence[Output], columns: Sequence[str], among: pa.Array) -> pa.Table:
    """Those columns (the account id, times and groups) of the rows of the accounts ``among``, file by file.

    Raises:
        PartitionError: ``input_digest_mismatch``, ``file_missing`` or ``input_corrupt``.
    """

    def read(output: Output) -> pa.Table:
        path = verified(str(store / output.path), output.sha256)
        try:
            with pq.ParquetFile(path, read_dictionary=[*columns]) as file:  # text of the rows that are kept alone
                parts = [_of(file, number, columns, among) for number in range(file.metadata.num_row_groups)]
        except (OSError, pa.ArrowException) as error:
            raise PartitionError(
                "input_corrupt", "a page does not decode", where=path.name, remedy="restore the file"
            ) from error
        return pa.concat_tables(parts, promote_options="permissive")

    with ThreadPoolExecutor(_READERS) as pool:
        return pa.concat_tables(pool.map(read, files)).combine_chunks()


def _of(file: pq.ParquetFile, number: int, columns: Sequence[str], among: pa.Array) -> pa.Table:
    table = file.read_row_group(number, columns=[*columns], use_threads=False)
    kept = table.take(pc.indices_nonzero(pc.is_in(table[ACCOUNT_ID], value_set=among)))
    plain = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field for field in kept.schema
    ]
    return kept.cast(pa.schema(plain))
