"""Labels of accounts, 0 or 1, by exact account id: which of them may stand beside an account's features of a moment.

A label without ``decided_at`` is a fact, whenever it was found. One with it is somebody's decision, and counts for an as-of only

- when it was made at the as-of or later: features of an account that was decided on before may hold the decision (a blocked
  account sends no more mail), and a model would learn what it is to find out;
- with ``mature``, when it was made less than so long after the as-of: later ones speak of another time. And an as-of has no
  labels before the decisions reach so far, since the bad ones are found first; they reach to the newest in the file.

Of several decisions the latest counts. With a column ``as_of`` a label is of that as-of alone, else of any. ``probability``, of
having been chosen for a decision, gives the weight 1 / probability.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.errors import Problem, Refused
from batchscore.features.feature_set import FeatureSet
from batchscore.keys import ACCOUNT_ID, MOMENT, positions
from batchscore.training.rows import AS_OF, DECIDED_AT, read_rows

LABEL: Final = "label"
WEIGHT: Final = "weight"
PROBABILITY: Final = "probability"
_ROW: Final = "row"


@dataclass(slots=True)
class Labels:
    """Usable labels: ``rows`` has account_id, label (int8), row, and as_of, decided_at and weight where the file has them.

    Also what came of them so far, beside rows of a frame: ``n_early`` and ``n_immature`` are rows without a label although there
    are decisions, all made before the as-of, or none that is mature; ``n_changed`` rows whose decisions differ.
    """

    rows: pa.Table
    mature: timedelta | None = None
    n_early: int = 0
    n_immature: int = 0
    n_changed: int = 0
    _used: npt.NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self._used = np.zeros(len(self.rows), np.bool_)

    @property
    def n_unused(self) -> int:
        """Labels that stand beside no row so far."""
        return int((~self._used).sum())

    def beside(self, frame: pa.Table, as_of: datetime) -> pa.Table:
        """``frame`` (features as of ``as_of``) with ``label`` and, of sampled labels, ``weight``; null where there is none."""
        ids = frame[ACCOUNT_ID].combine_chunks()
        rows = self.rows.filter(pc.is_in(self.rows[ACCOUNT_ID], value_set=ids))
        if AS_OF in rows.column_names:
            rows = rows.filter(pc.equal(rows[AS_OF], pa.scalar(as_of, MOMENT)))
        decided = self._decided_in_time(rows, as_of)
        if DECIDED_AT in decided.column_names:
            decided = decided.sort_by([(DECIDED_AT, "descending")])  # of an account's rows the first is found
        at = positions(ids, decided[ACCOUNT_ID].combine_chunks())
        self._used[decided[_ROW].to_numpy()[at[at >= 0]]] = True
        self.n_changed += _n_changed(decided)
        places = pa.array(at, mask=at < 0)
        for name in (LABEL, WEIGHT):
            if name in decided.column_names:
                frame = frame.append_column(name, decided[name].combine_chunks().take(places))
        return frame

    def _decided_in_time(self, rows: pa.Table, as_of: datetime) -> pa.Table:
        if DECIDED_AT not in rows.column_names:
            return rows
        later = rows.filter(pc.greater_equal(rows[DECIDED_AT], pa.scalar(as_of, MOMENT)))
        self.n_early += _n_accounts(rows) - _n_accounts(later)
        if self.mature is None:
            return later
        end = as_of + self.mature
        newest = pc.max(self.rows[DECIDED_AT]).as_py()
        reached = newest is not None and newest >= end
        mature = later.filter(pc.less(later[DECIDED_AT], pa.scalar(end, MOMENT))) if reached else later.slice(len(later))
        self.n_immature += _n_accounts(later) - _n_accounts(mature)
        return mature


def _n_accounts(rows: pa.Table) -> int:
    return int(pc.count_distinct(rows[ACCOUNT_ID]).as_py())


def _n_changed(decided: pa.Table) -> int:
    spread = decided.group_by(ACCOUNT_ID).aggregate([(LABEL, "min"), (LABEL, "max")])
    return int(pc.sum(pc.not_equal(spread[f"{LABEL}_min"], spread[f"{LABEL}_max"])).as_py() or 0)


def read_labels(path: Path, feature_set: FeatureSet, mature: timedelta | None = None) -> Labels:
    """The usable labels at ``path``, Parquet or CSV.

    Columns: ``account_id`` and ``label``, and of ``as_of``, ``decided_at`` and ``probability`` those that are there. Rows
    without an account id or a label say nothing, and are left out.

    Raises:
        Refused: a column is missing (``column_missing``), as decided_at is where ``mature`` is asked for, or not exact; a label
            is neither 0 nor 1; a probability is not above 0 and at most 1; an account has two labels where one is to be
            (``duplicate_id``), or two that differ of one moment (``label_conflict``).
    """
    read = read_rows(path, feature_set, [LABEL], [AS_OF, DECIDED_AT, PROBABILITY])
    if mature is not None and DECIDED_AT not in read.column_names:
        what = "has no decided_at, so nothing says which labels are mature"
        raise Refused("column_missing", what, where=path.name, remedy="say when each label was decided, or leave --mature out")
    read = read.filter(read[LABEL].is_valid())
    label = read[LABEL].cast(pa.int8()) if pa.types.is_boolean(read[LABEL].type) else read[LABEL]
    _require(path, LABEL, pc.is_in(label, pa.array([0, 1], label.type)), "is 0 and 1, and a value is neither")
    for name in (AS_OF, DECIDED_AT):
        if name in read.column_names:
            _require(path, name, read[name].is_valid(), "is missing where there is a label")
    columns = {name: read[name] for name in (ACCOUNT_ID, AS_OF, DECIDED_AT) if name in read.column_names}
    made = pa.table({**columns, LABEL: label.cast(pa.int8())})
    if PROBABILITY in read.column_names:
        chance = read[PROBABILITY].cast(pa.float64())
        sound = pc.fill_null(pc.and_(pc.greater(chance, 0), pc.less_equal(chance, 1)), fill_value=False)
        _require(path, PROBABILITY, sound, "is above 0 and at most 1, and a value is not")
        made = made.append_column(WEIGHT, pc.divide(1.0, chance))
    return labels_of(made, path, mature)


def labels_of(rows: pa.Table, path: Path, mature: timedelta | None) -> Labels:
    """Labels of ``rows``, each account and moment once: account_id, label (int8), and as_of, decided_at, weight if there are any.

    ``path`` names them in a message. Raises Refused ``duplicate_id`` or ``label_conflict``.
    """
    made = _each_once(rows, path)
    return Labels(made.append_column(_ROW, pa.array(np.arange(len(made)))), mature)


def _require(path: Path, column: str, sound: pa.ChunkedArray, what: str) -> None:
    if not pc.all(sound, min_count=0).as_py():
        raise Refused("column_type", what, where=f"{path.name}: {column}", remedy="mend or leave out these rows")


def _each_once(rows: pa.Table, path: Path) -> pa.Table:
    """Rows that say the same of one account and moment once; those that differ are refused."""
    moments = [name for name in (AS_OF, DECIDED_AT) if name in rows.column_names]
    if not moments:
        if pc.count_distinct(rows[ACCOUNT_ID]).as_py() != len(rows):
            remedy = "keep one row for each account, or say decided_at of each"
            raise Refused("duplicate_id", "an account has more than one label", where=path.name, remedy=remedy)
        return rows
    values = [name for name in (LABEL, WEIGHT) if name in rows.column_names]
    distinct = rows.group_by([ACCOUNT_ID, *moments, *values], use_threads=False).aggregate([])
    if len(distinct.group_by([ACCOUNT_ID, *moments]).aggregate([])) != len(distinct):
        raise Refused(
            "label_conflict",
            "an account has two labels of one moment that differ",
            where=path.name,
            remedy="keep the one that holds, or say decided_at of each: then the latest counts",
        )
    return distinct


def refuse_other_use(feature_set: FeatureSet, names: tuple[str, ...]) -> None:
    """Raise Refused ``spec_invalid`` when a feature has one of the ``names`` of a frame's own columns."""
    problems = tuple(
        Problem(where=f"features.{name}", what=f"is the name of the column of {name}s", remedy="rename the feature")
        for name in names
        if name in feature_set.features
    )
    if problems:
        raise Refused("spec_invalid", "the feature set cannot be built with labels", where="labels", problems=problems)
