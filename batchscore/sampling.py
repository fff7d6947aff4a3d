"""Features of a few accounts as of a date, to look at: the code that scores, over those accounts' events alone.

Accounts are frozen into a scratch folder that is removed, and all events are read once, in batches; of these only the chosen
accounts' are rolled up. So it takes what reading the input takes, and little memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.errors import Refused
from batchscore.features.accounts import Accounts
from batchscore.features.feature_set import FeatureSet, read_feature_set
from batchscore.features.frame import make_frame, population
from batchscore.features.rollup import roll_up
from batchscore.features.tables import AccountsTable
from batchscore.features.windows import prepare
from batchscore.files import write_named_by_digest
from batchscore.key_index import KeyIndex
from batchscore.keys import ACCOUNT_ID, sort_by_key
from batchscore.plan import Rollup
from batchscore.planner.agreement import refuse_mismatch
from batchscore.planner.inputs import read_inputs
from batchscore.sources.freeze import read_events
from batchscore.sources.outside_a_run import freeze_outside_a_run, works_outside_a_run
from batchscore.spec import RunSpec

_RANGE_ROWS = 50_000


def sample_features(spec: RunSpec, as_of: datetime, n_accounts: int) -> tuple[FeatureSet, pa.Table]:
    """The feature set, and the frame of ``n_accounts`` accounts (fewer if there are fewer) that existed at ``as_of``.

    They are spread evenly over the lowest `_RANGE_ROWS` ids.

    Raises:
        Refused: ``spec_invalid`` when ``as_of`` is not whole grains; what planning refuses of spec, feature set and inputs.
        PartitionError: the input cannot be read.
    """
    feature_set = read_feature_set(Path(spec.feature_set))
    if not feature_set.is_whole(as_of):
        raise Refused(
            "spec_invalid", f"{as_of.isoformat()} is not a whole number of the feature set's grain in UTC", where="--as-of"
        )
    refuse_mismatch(spec, feature_set, ())
    inputs, _, _ = read_inputs(spec, feature_set)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        held = write_named_by_digest(feature_set.frozen_json().encode(), scratch, "json")
        table = feature_set.accounts.table
        frozen = freeze_outside_a_run(spec.sources[table], inputs.get(table, ()), feature_set, held, scratch)
        accounts = _chosen(KeyIndex.build(scratch, feature_set.account_id, frozen), feature_set.accounts, as_of, n_accounts)
        ids = accounts[ACCOUNT_ID].combine_chunks()
        prepared = {
            events.table: prepare(
                ids,
                _rolled_up(works_outside_a_run(spec.sources, inputs, events.table, feature_set, held, scratch), feature_set, ids),
                feature_set,
                events.table,
            )
            for events in feature_set.events
        }
        return feature_set, make_frame(accounts, prepared, as_of, feature_set)


def _chosen(snapshots: KeyIndex, declared: AccountsTable, as_of: datetime, n_accounts: int) -> pa.Table:
    keys, _ = snapshots.cut(_RANGE_ROWS)[0]
    accounts = Accounts.of(snapshots.read(keys), declared).at(as_of)
    accounts = accounts.filter(pa.array(population(accounts, as_of)))
    return accounts.take(pa.array(np.unique(np.linspace(0, len(accounts) - 1, min(n_accounts, len(accounts))).astype(np.int64))))


def _rolled_up(works: Iterable[Rollup], feature_set: FeatureSet, ids: pa.Array) -> pa.Table:
    """The rollup rows of the accounts ``ids``; rows of several batches stand side by side, as in a store."""
    rolled = [
        roll_up(events.table.filter(pc.is_in(events.table[ACCOUNT_ID], value_set=ids)), feature_set, work.table)
        for work in works
        for events in read_events(work, feature_set)
    ]
    return sort_by_key(pa.concat_tables(rolled, promote_options="permissive"))
