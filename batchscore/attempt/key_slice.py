"""What score, reconsider and reasons begin with: the accounts and rollups of a key range, prepared for any as-of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import pyarrow as pa

from batchscore.attempt.outcome import Outcome
from batchscore.features.accounts import Accounts
from batchscore.features.feature_set import open_feature_set
from batchscore.features.frame import make_frames
from batchscore.features.python import refuse_other_functions
from batchscore.features.windows import prepare
from batchscore.key_index import open_index
from batchscore.keys import ACCOUNT_ID, ID_TYPES, MOMENT
from batchscore.plan import Score, Task
from batchscore.report.proof import key_name


class KeySlice:
    """The accounts and rollups of one key range (or of the ids ``among`` it), read once and prepared for any as-of."""

    def __init__(self, task: Task, work: Score, outcome: Outcome, among: pa.Array | None = None) -> None:
        self.feature_set = open_feature_set(work.feature_set)
        kind = self.feature_set.account_id
        self.id_type = ID_TYPES[kind]
        refuse_other_functions(self.feature_set, work.functions)
        with outcome.timed("read"):
            rows = open_index(task.store, kind, work.snapshots).read(work.keys, among=among)
            self.rollups = {
                table: open_index(task.store, kind, index).read(work.keys, among=among) for table, index in work.rollups.items()
            }
        self.accounts = Accounts.of(rows, self.feature_set.accounts)
        ids = self.accounts.ids
        with outcome.timed("features"):
            span = work.as_ofs[0], work.as_ofs[-1]
            self.prepared = {table: prepare(ids, rollup, self.feature_set, table, span) for table, rollup in self.rollups.items()}
        self.began = {
            as_of: {table: moments[place] for table, moments in work.began.items()} for place, as_of in enumerate(work.as_ofs)
        }
        outcome.count("rows", len(self.accounts))
        outcome.count(key_name("orphans", work.as_ofs[0]), sum(prepared.n_orphans for prepared in self.prepared.values()))

    def frames(self, as_ofs: Sequence[datetime], outcome: Outcome) -> Iterator[tuple[datetime, pa.Table]]:
        """Each as-of and the features of all accounts at it; the windows slide over the rollups once."""
        frames = make_frames(self.accounts, self.prepared, as_ofs, self.feature_set)
        for as_of in as_ofs:
            with outcome.timed("features"):
                frame = next(frames)
            yield as_of, frame


def rows_at(as_of: datetime, ids: pa.ChunkedArray, columns: dict[str, object], schema: pa.Schema) -> pa.Table:
    """A table of ``schema``: the as-of in each row, the ids, and other columns of their length."""
    moments = pa.repeat(pa.scalar(as_of, MOMENT), len(ids))
    return pa.table({"as_of": moments, ACCOUNT_ID: ids, **columns}, schema=schema)
