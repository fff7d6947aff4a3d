"""The contract: which columns a model wants, and a frame that is known to have exactly those.

`inplace_predict` checks names for pandas only: a permuted table would be scored without an error. So a scorer takes
nothing but a `Frame`, a frame is made by `conform` alone, and `conform` goes by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.errors import Problem, Refused
from batchscore.spelling import did_you_mean

Matrix = npt.NDArray[np.float32]
_LARGEST: Final = 2**63 - 1
_ROWS_AT_ONCE: Final = 16_384  # turned: memory beside the matrix does not follow the number of rows
_NO_SETS: Final[Mapping[str, CategorySet]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Rows a model can score. Only `conform` makes one, and `take` a part of one.

    ``matrix``: float32 (n, F), C order, columns as ``names``, NaN is missing; a category is its code. ``nonfinite``: bool (n,):
    the row holds ±inf, or a number too large for float32. ``unseen``: bool (n,), or None for no row: it holds a category that is
    declared to reject it. The caller rejects such rows (`nonfinite_feature`, `unseen_category`), and a scorer gives NaN for them.
    """

    names: tuple[str, ...]
    matrix: Matrix
    nonfinite: npt.NDArray[np.bool_]
    unseen: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.matrix)

    @property
    def unscorable(self) -> npt.NDArray[np.bool_]:
        """Rows that get NaN, bool (n,)."""
        return self.nonfinite if self.unseen is None else self.nonfinite | self.unseen

    def take(self, places: npt.NDArray[np.int64]) -> Frame:
        """The rows at ``places``."""
        unseen = None if self.unseen is None else self.unseen[places]
        return Frame(self.names, self.matrix[places], self.nonfinite[places], unseen)


@dataclass(frozen=True, kw_only=True, slots=True)
class CategorySet:
    """The values a categorical feature had in training, in the order of the model's codes; what to do with any other."""

    known: tuple[str, ...] | tuple[int, ...]
    unseen: Literal["missing", "reject"] = "missing"

    @property
    def column(self) -> pa.Array:
        """The values as Arrow holds them: string or int64."""
        return pa.array(self.known, pa.string() if isinstance(self.known[0], str) else pa.int64())


def conform(table: pa.Table, names: Sequence[str], sets: Mapping[str, CategorySet] = _NO_SETS) -> Frame:
    """The columns ``names`` of ``table``, in that order, as a frame. Other columns and the order of columns do not matter.

    float16 and float32 are taken as they are; float64 and integers are rounded to the nearest float32 (ties to even), so
    integers beyond 2^24 lose their last digits here and nowhere else; bool is 0 and 1; null and NaN are one thing, missing.
    A dictionary of any of these is decoded. A feature with a set in ``sets`` is brought to the codes of its categories, and
    must be text, or an integer where the set holds integers: a number in place of text could be anybody's code.

    Raises:
        Refused: ``feature_contract`` (a column is absent; the nearest name is given), ``column_duplicate``, ``column_type``.
            All columns at fault are listed.
    """
    _refuse_names(table.column_names, names)
    _refuse_types(table.schema, names, sets)
    nonfinite = np.zeros(len(table), np.bool_)
    unseen = None
    columns = []
    for name in names:
        if name in sets:
            codes, strangers = _as_codes(table.column(name), sets[name])
            columns.append(codes)
            if sets[name].unseen == "reject" and strangers.any():
                unseen = strangers if unseen is None else unseen | strangers
            continue
        column = _as_float32(table.column(name))
        infinite = np.isinf(column)
        if infinite.any():
            nonfinite |= infinite
        columns.append(column)
    return Frame(tuple(names), _side_by_side(columns), nonfinite, unseen)


def require_names(frame: Frame, names: tuple[str, ...]) -> None:
    """Refuse a frame that was conformed to another model's names.

    Raises:
        Refused: ``feature_contract``.
    """
    if frame.names != names:
        raise Refused(
            "feature_contract",
            "the frame was conformed to another model's features",
            remedy="conform the table to the names of the scorer that is to score it",
        )


def _refuse_names(found: Sequence[str], wanted: Sequence[str]) -> None:
    times = Counter(found)
    absent = [name for name in wanted if name not in times]
    if absent:
        problems = tuple(
            Problem(where=name, what="is not among the columns", remedy=did_you_mean(name, found)) for name in absent
        )
        raise Refused(
            "feature_contract",
            f"{len(absent)} of the model's {len(wanted)} features are not in the table",
            problems=problems,
            remedy="use the feature set the bundle was trained for",
        )
    doubled = tuple(Problem(where=name, what=f"stands {times[name]} times") for name in wanted if times[name] > 1)
    if doubled:
        raise Refused(
            "column_duplicate",
            "a feature's name belongs to several columns",
            problems=doubled,
            remedy="keep one column of each name",
        )


def _refuse_types(schema: pa.Schema, wanted: Sequence[str], sets: Mapping[str, CategorySet]) -> None:
    types = {name: schema.field(name).type for name in wanted}
    wrong = tuple(
        Problem(
            where=name,
            what=f"is {kind}, where {'categories are ' + _kind_of(sets[name]) if name in sets else 'a number is wanted'}",
        )
        for name, kind in types.items()
        if not (_holds(sets[name], kind) if name in sets else _is_number(kind))
    )
    if wrong:
        raise Refused(
            "column_type",
            "a feature is not a float, integer or bool column, or not what its categories are",
            problems=wrong,
            remedy="make it what the model was trained with, in the feature set",
        )


def _kind_of(categories: CategorySet) -> str:
    return "text" if isinstance(categories.known[0], str) else "integers"


def _holds(categories: CategorySet, kind: pa.DataType) -> bool:
    """Whether a column of that type can hold the categories."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if isinstance(categories.known[0], str):
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind))
    return bool(pa.types.is_integer(kind))


def _as_codes(column: pa.ChunkedArray, categories: CategorySet) -> tuple[Matrix, npt.NDArray[np.bool_]]:
    """The code of each value, float32 (n,), NaN for null and for what is no category; and where the latter stand, bool (n,)."""
    known = categories.column
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    present = column.is_valid().to_numpy()
    if pa.types.is_uint64(column.type):
        too_large = pc.greater(column, pa.scalar(_LARGEST, pa.uint64()))  # for the type of any set: no category
        column = pc.if_else(too_large, pa.scalar(None, pa.uint64()), column)
    column = column.cast(known.type)
    places = pc.index_in(column, value_set=known)
    found = places.is_valid().to_numpy()
    codes: Matrix = places.fill_null(0).to_numpy().astype(np.float32)
    codes[~found] = np.nan
    return codes, ~found & present


def _is_number(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind))


def _side_by_side(columns: Sequence[Matrix]) -> Matrix:
    """``np.column_stack`` of float32 (n,) columns, several times as fast where they are many.

    That writes one value in each row, column by column, so that each line of the cache is fetched once per feature. Copying the
    columns below each other, and letting numpy turn the block, goes over rows and columns in tiles.
    """
    n_rows = len(columns[0])
    matrix = np.empty((n_rows, len(columns)), np.float32)
    for first in range(0, n_rows, _ROWS_AT_ONCE):
        matrix[first : first + _ROWS_AT_ONCE] = np.stack([column[first : first + _ROWS_AT_ONCE] for column in columns]).T
    return matrix


def _as_float32(column: pa.ChunkedArray) -> Matrix:
    """A column of numbers as float32 (n,); NaN where null. Integers never pass through float64, which would round twice."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    present = None
    if column.null_count and not pa.types.is_floating(column.type):
        present = column.is_valid().to_numpy()
        column = column.fill_null(False if pa.types.is_boolean(column.type) else 0)
    with np.errstate(over="ignore"):
        values: Matrix = column.to_numpy().astype(np.float32, copy=False)
    return values if present is None else np.where(present, values, np.float32(np.nan))
