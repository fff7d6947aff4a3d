"""Labels of accounts from Parquet: 0 or 1 each, by exact account id. They are joined to a frame, never a feature."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.errors import Problem, Refused
from batchscore.features.feature_set import AccountsTable, FeatureSet
from batchscore.keys import ACCOUNT_ID, positions
from batchscore.sources.canonical import Place, canonical_accounts
from batchscore.sources.parquet import check_schema, list_inputs, read_batches

LABEL: Final = "label"
_LABELS: Final = "labels"  # what messages call the file


def read_labels(path: Path, feature_set: FeatureSet) -> pa.Table:
    """``account_id`` of the feature set's kind, and ``label`` int8 (0, 1 or null), one row an account.

    Rows without a usable account id are left out: no row of a frame could have them.

    Raises:
        Refused: no Parquet; a column is missing or not exact; a label is neither 0 nor 1; an account stands twice.
    """
    files, _ = list_inputs(path)
    first = pq.read_schema(Path(files[0].root) / files[0].path).names
    table = AccountsTable(table=_LABELS, key=ACCOUNT_ID if ACCOUNT_ID in first else feature_set.accounts.key)
    problems = check_schema(files, table, [LABEL], feature_set.account_id)
    if problems:
        raise Refused("column_type", "the labels cannot be used", where=path.name, problems=problems)
    rows = [
        canonical_accounts(batch, table, [LABEL], feature_set.account_id, Place(file.path)).table
        for file in files
        for batch in read_batches(file, [table.key, LABEL])
    ]
    read = pa.concat_tables(rows, promote_options="permissive")
    label = read[LABEL]
    if pa.types.is_boolean(label.type):
        label = label.cast(pa.int8())
    if not pc.all(pc.is_in(label.drop_null(), pa.array([0, 1], label.type))).as_py():
        raise Refused(
            "column_type", "holds other values than 0 and 1", where=f"{path.name}: {LABEL}", remedy="write 0, 1 or null"
        )
    if pc.count_distinct(read[ACCOUNT_ID]).as_py() != len(read):
        what = "an account has more than one label"
        raise Refused("duplicate_id", what, where=path.name, remedy="keep one row for each account")
    return pa.table({ACCOUNT_ID: read[ACCOUNT_ID].combine_chunks(), LABEL: label.cast(pa.int8()).combine_chunks()})


def labelled(frame: pa.Table, labels: pa.Table) -> pa.Table:
    """``frame`` with the column ``label``, null where there is none for the account.

    Raises:
        Refused: ``spec_invalid``: a feature has that name.
    """
    if LABEL in frame.column_names:
        problem = Problem(where=f"features.{LABEL}", what="is the name of the column of labels", remedy="rename the feature")
        raise Refused("spec_invalid", "the feature set cannot be built with labels", where=_LABELS, problems=(problem,))
    at = positions(frame[ACCOUNT_ID].combine_chunks(), labels[ACCOUNT_ID].combine_chunks())
    return frame.append_column(LABEL, labels[LABEL].combine_chunks().take(pa.array(at, mask=at < 0)))
