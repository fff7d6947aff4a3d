"""The child of `probe`: loads a model, scores and explains some rows, and says what came out. It may die; that is what it is for.

It speaks to XGBoost's C library itself, by the calls that XGBoost's Python package makes, and imports the standard library
alone: so it starts in a twentieth of a second, where the package and what that imports take a third. On the command line: the
library's path. On standard input: `HEADER`, the model's bytes, float32 rows. On standard output: margins in place, by
DMatrix, and the sums of the contributions of the first `N_EXPLAINED` rows, float32 each.
"""

from __future__ import annotations

import ctypes
import json
import math
import resource
import struct
import sys
from array import array

HEADER = struct.Struct("<5Q")  # bytes of the model, rows, features, rounds, bytes of address space
N_EXPLAINED = 4  # rows; explaining costs a thousand times what scoring does
NOT_TAKEN = 3  # exit code: XGBoost itself refuses the model
MAX_CPU_S = 60
_MARGIN, _CONTRIBUTIONS = 1, 2  # kinds of prediction
_FEATURE_TYPES = b"feature_type"


class NotTakenError(Exception):
    """XGBoost refuses the model, or the rows."""


class _Model:
    """A booster of one thread, behind the C interface (xgboost/c_api.h)."""

    def __init__(self, library: ctypes.CDLL, model: bytes) -> None:
        self._library = library
        self._booster = ctypes.c_void_p()
        self._call("XGBoosterCreate", None, ctypes.c_uint64(0), ctypes.byref(self._booster))
        self._call("XGBoosterLoadModelFromBuffer", self._booster, model, ctypes.c_uint64(len(model)))
        self._call("XGBoosterSetParam", self._booster, b"nthread", b"1")

    def in_place(self, rows: bytes, n_rounds: int) -> list[float]:
        """Margins of ``rows``, as `rows_at` describes them, by the route that scoring takes."""
        asked = _json(type=_MARGIN, training=False, missing=math.nan, cache_id=0, **_rounds(n_rounds))
        return self._predicted("XGBoosterPredictFromDense", self._booster, rows, asked, None)

    def by_matrix(self, rows: bytes, n_rounds: int, kind: int) -> list[float]:
        """Margins, or contributions one row after the other, by XGBoost's other route."""
        matrix = ctypes.c_void_p()
        asked = _json(missing=math.nan, nthread=1, data_split_mode=0)
        self._call("XGDMatrixCreateFromDense", rows, asked, ctypes.byref(matrix))
        n, types = ctypes.c_uint64(), ctypes.POINTER(ctypes.c_char_p)()
        self._call("XGBoosterGetStrFeatureInfo", self._booster, _FEATURE_TYPES, ctypes.byref(n), ctypes.byref(types))
        if n.value:
            self._call("XGDMatrixSetStrFeatureInfo", matrix, _FEATURE_TYPES, types, n)
        asked = _json(type=kind, training=False, **_rounds(n_rounds))
        return self._predicted("XGBoosterPredictFromDMatrix", self._booster, matrix, asked)

    def _predicted(self, name: str, *given: object) -> list[float]:
        shape, n_dimensions = ctypes.POINTER(ctypes.c_uint64)(), ctypes.c_uint64()
        values = ctypes.POINTER(ctypes.c_float)()
        self._call(name, *given, ctypes.byref(shape), ctypes.byref(n_dimensions), ctypes.byref(values))
        return values[: math.prod(shape[: n_dimensions.value])]

    def _call(self, name: str, *given: object) -> None:
        if getattr(self._library, name)(*given) != 0:
            raise NotTakenError


def rows_at(address: int, n_rows: int, n_features: int) -> bytes:
    """Where float32 rows lie, one after the other, as XGBoost is told (NumPy's array interface)."""
    return _json(data=[address, True], shape=[n_rows, n_features], typestr="<f4", version=3, strides=None)


def _rounds(n_rounds: int) -> dict[str, object]:
    return {"iteration_begin": 0, "iteration_end": n_rounds, "strict_shape": False}


def _json(**values: object) -> bytes:
    return json.dumps(values).encode()


def main() -> int:
    """Do what the module says, within limits."""
    library = ctypes.CDLL(sys.argv[1])
    read = sys.stdin.buffer.read
    n_model, n_rows, n_features, n_rounds, n_bytes = HEADER.unpack(read(HEADER.size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (n_bytes, n_bytes))
    payload = read(n_model)
    held = array("f", read())
    address, _ = held.buffer_info()
    n_few = min(N_EXPLAINED, n_rows)
    rows, few = rows_at(address, n_rows, n_features), rows_at(address, n_few, n_features)
    try:
        model = _Model(library, payload)
        margins = model.in_place(rows, n_rounds)
        by_matrix = model.by_matrix(rows, n_rounds, _MARGIN)
        explained = model.by_matrix(few, n_rounds, _CONTRIBUTIONS)
    except NotTakenError:
        return NOT_TAKEN
    width = n_features + 1
    sums = [math.fsum(explained[row * width : (row + 1) * width]) for row in range(n_few)]
    for answer in (margins, by_matrix, sums):
        sys.stdout.buffer.write(array("f", answer).tobytes())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
