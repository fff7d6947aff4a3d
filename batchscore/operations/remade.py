"""Features of some accounts of a run, made once more from its frozen input by the code that scored. Reads only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batchscore.features.accounts import Accounts
from batchscore.features.coverage import is_covered
from batchscore.features.feature_set import FeatureSet, open_feature_set
from batchscore.features.frame import make_frame, make_frames, only, population
from batchscore.features.python import refuse_other_functions
from batchscore.features.windows import prepare
from batchscore.key_index import open_index
from batchscore.plan import Score

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Remade:
    """Accounts of a key range as of a moment, one row each, and their features, row by row.

    ``inside``: bool (n,), the account exists then. ``everyone``: all features, also of those that do not.
    """

    feature_set: FeatureSet
    accounts: pa.Table
    everyone: pa.Table
    inside: Mask

    @property
    def frame(self) -> pa.Table:
        """The features of those that exist."""
        return only(self.everyone, self.inside)

    def covered(self, work: Score, as_of: datetime) -> Mask:
        """Which accounts the data reach back far enough for, bool (n,). ``as_of`` is one of the work's."""
        place = work.as_ofs.index(as_of)
        began = {table: moments[place] for table, moments in work.began.items()}
        return is_covered(self.accounts, began, as_of, self.feature_set)


def frames_again(work: Score, store: str) -> Iterator[tuple[datetime, pa.Table]]:
    """Each as-of of ``work`` and the features of all accounts of its range that are scored then; windows slide over them once."""
    feature_set = open_feature_set(work.feature_set)
    refuse_other_functions(feature_set, work.functions)
    kind = feature_set.account_id
    accounts = Accounts.of(open_index(store, kind, work.snapshots).read(work.keys), feature_set.accounts)
    span = work.as_ofs[0], work.as_ofs[-1]
    prepared = {
        table: prepare(accounts.ids, open_index(store, kind, index).read(work.keys), feature_set, table, span)
        for table, index in work.rollups.items()
    }
    for as_of, everyone in zip(work.as_ofs, make_frames(accounts, prepared, work.as_ofs, feature_set), strict=True):
        held = accounts.at(as_of)
        made = Remade(feature_set=feature_set, accounts=held, everyone=everyone, inside=population(held, as_of))
        yield as_of, only(everyone, made.inside & made.covered(work, as_of))


def features_again(work: Score, store: str, as_of: datetime, among: pa.Array | None = None) -> Remade:
    """The features at ``as_of`` of the accounts of the range of ``work``, or of the ids ``among`` it. Any whole as-of.

    Raises:
        PartitionError: a file is gone, damaged, or not what was committed.
        Refused: ``python_feature``: a function is not the one that was planned.
    """
    feature_set = open_feature_set(work.feature_set)
    refuse_other_functions(feature_set, work.functions)
    kind = feature_set.account_id
    accounts = Accounts.of(open_index(store, kind, work.snapshots).read(work.keys, among=among), feature_set.accounts)
    prepared = {
        table: prepare(accounts.ids, open_index(store, kind, index).read(work.keys, among=among), feature_set, table)
        for table, index in work.rollups.items()
    }
    held = accounts.at(as_of)
    everyone = make_frame(held, prepared, as_of, feature_set)
    return Remade(feature_set=feature_set, accounts=held, everyone=everyone, inside=population(held, as_of))
