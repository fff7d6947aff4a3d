"""The contract: which columns a model wants, and a frame that is known to have exactly those.

`inplace_predict` checks names for pandas only: a permuted table would be scored without an error. So a scorer takes
nothing but a `Frame`, a frame is made by `conform` alone, and `conform` goes by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batchscore.errors import Problem, Refused

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Rows a model can score. Only `conform` makes one, and `take` a part of one.

    ``matrix``: float32 (n, F), C order, columns as ``names``, NaN is missing. ``nonfinite``: bool (n,): the row holds ±inf,
    or a number too large for float32; the caller rejects such rows (`nonfinite_feature`), and a scorer gives NaN for them.
    """

    names: tuple[str, ...]
    matrix: Matrix
    nonfinite: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.matrix)

    def take(self, places: npt.NDArray[np.int64]) -> Frame:
        """The rows at ``places``."""
        return Frame(self.names, self.matrix[places], self.nonfinite[places])


def conform(table: pa.Table, names: Sequence[str]) -> Frame:
    """The columns ``names`` of ``table``, in that order, as a frame. Other columns and the order of columns do not matter.

    float16 and float32 are taken as they are; float64 and integers are rounded to the nearest float32 (ties to even), so
    integers beyond 2^24 lose their last digits here and nowhere else; bool is 0 and 1; null and NaN are one thing, missing.
    A dictionary of any of these is decoded.

    Raises:
        Refused: ``feature_contract`` (a column is absent; the nearest name is given), ``column_duplicate``, ``column_type``.
            All columns at fault are listed.
    """
    _refuse_names(table.column_names, names)
    _refuse_types(table.schema, names)
    nonfinite = np.zeros(len(table), np.bool_)
    columns = []
    for name in names:
        column = _as_float32(table.column(name))
        infinite = np.isinf(column)
        if infinite.any():
            nonfinite |= infinite
        columns.append(column)
    return Frame(tuple(names), np.column_stack(columns), nonfinite)


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


def nearest(name: str, among: Sequence[str]) -> str:
    """``did you mean 'x'?``, or an empty text when nothing is near. Case does not count."""
    by_folded = {candidate.casefold(): candidate for candidate in among}
    near = get_close_matches(name.casefold(), list(by_folded), n=1)
    return f"did you mean {by_folded[near[0]]!r}?" if near else ""


def _refuse_names(found: Sequence[str], wanted: Sequence[str]) -> None:
    times = Counter(found)
    absent = [name for name in wanted if name not in times]
    if absent:
        problems = tuple(Problem(where=name, what="is not among the columns", remedy=nearest(name, found)) for name in absent)
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


def _refuse_types(schema: pa.Schema, wanted: Sequence[str]) -> None:
    types = {name: schema.field(name).type for name in wanted}
    numberless = {name: kind for name, kind in types.items() if not _is_number(kind)}
    wrong = tuple(Problem(where=name, what=f"is {kind}, which is no number") for name, kind in numberless.items())
    if wrong:
        raise Refused(
            "column_type",
            "a feature is not a float, integer or bool column",
            problems=wrong,
            remedy="make it a number in the feature set",
        )


def _is_number(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind))


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
