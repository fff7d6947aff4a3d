"""The groups that accounts are in, in files of their own beside the snapshots: a few columns, looked up for few of many accounts.

A snapshot holds them too, among all that features read; whoever wants the groups alone would hash ten times as much, and decode
every page for a handful of its rows. So these are Arrow files: rows in the order of their ids, found by bisection, each as it
lies. A store that an earlier release froze has none: its groups are read from the snapshots, and are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.drafts import Drafts
from batchscore.errors import PartitionError
from batchscore.features.tables import AccountsTable
from batchscore.files import open_verified
from batchscore.keys import ACCOUNT_ID, Words
from batchscore.receipt import Output, Receipt

_READERS: Final = 2  # threads, each of which holds one file


def write_groups(rows: pa.Table, accounts: AccountsTable, names: Iterable[str], drafts: Drafts) -> None:
    """The columns ``names`` of a snapshot's rows, with their ids and times and in their order.

    Raises:
        AttemptFailed: ``write_failed``.
    """
    drafts.write_arrow(rows.select([ACCOUNT_ID, *accounts.times, *names]), "groups")


def groups_beside(receipts: Iterable[Receipt]) -> tuple[Output, ...] | None:
    """The files of groups that freezes left; None where some left none, as earlier releases did, or there is nobody."""
    found: list[Output] = []
    for receipt in receipts:
        n_rows = {role: sum(one.n_rows for one in receipt.outputs if one.role == role) for role in ("groups", "snapshot")}
        if n_rows["groups"] != n_rows["snapshot"]:
            return None
        found += [output for output in receipt.outputs if output.role == "groups"]
    return tuple(found) or None


def read_groups(store: Path, files: Sequence[Output], columns: Sequence[str], among: pa.Array) -> pa.Table:
    """Those columns (the account id, times and groups) of the rows of the accounts ``among``, file by file.

    Raises:
        PartitionError: ``input_digest_mismatch``, ``file_missing`` or ``input_corrupt``.
    """
    wanted = pc.unique(among).sort()
    sought = wanted.to_numpy() if pa.types.is_integer(wanted.type) else None

    def read(output: Output) -> pa.Table:
        try:
            # Not mapped: a file that is cut meanwhile would end the process.
            with open_verified(str(store / output.path), output.sha256) as stream:
                table = pa.ipc.open_file(stream).read_all().select(columns)
        except (OSError, pa.ArrowException) as error:
            where = Path(output.path).name
            raise PartitionError("input_corrupt", "does not decode", where=where, remedy="restore the file") from error
        ids = table[ACCOUNT_ID].combine_chunks()
        places = pc.indices_nonzero(pc.is_in(ids, value_set=wanted)) if sought is None else _places(ids.to_numpy(), sought)
        return table.take(places)

    with ThreadPoolExecutor(_READERS) as pool:
        return pa.concat_tables(pool.map(read, files), promote_options="permissive").combine_chunks()


def _places(held: Words, sought: Words) -> npt.NDArray[np.int64]:
    """Where those that are ``held`` (rising, each perhaps several times) are among those ``sought`` (rising); in order."""
    if not len(held):
        return np.empty(0, np.int64)
    low, high = np.searchsorted(sought, held[[0, -1]])
    sought = sought[low : high + 1]
    first, end = np.searchsorted(held, sought, side="left"), np.searchsorted(held, sought, side="right")
    n_of = end - first
    return np.repeat(end - np.cumsum(n_of), n_of) + np.arange(n_of.sum())
