"""Features by ordinary Python functions, named ``package:function``, of an installed distribution. Row by row, and held to it.

A function is given a pandas DataFrame: one float64 column for each of the features it is ``of``, NaN for missing, and an index
that means nothing. It returns one float for each row, as a Series, an array or a list; NaN (or None) is missing. A row's value
may depend on that row alone: `check_row_wise` calls it on permuted and split rows and demands equal bits.

What decides its values is pinned: the distribution's version and the SHA-256 of the file that holds the function, both as they
were when this process loaded it. A process that loaded one version never passes for another that was installed since.
What a function raises is told by its type alone: its message may quote a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from batchscore.errors import BatchscoreError, PartitionError, Refused
from batchscore.features.definitions import PythonFeature
from batchscore.features.feature_set import FeatureSet
from batchscore.files import file_sha256

Floats = npt.NDArray[np.float64]
_CHECKED_ROWS: Final = 64
_EDGES: Final = (0.0, 1.0, -1.0, np.nan, 0.5, 1e-9, 1e18, 3.0)


def fingerprints(feature_set: FeatureSet) -> dict[str, str]:
    """Each function of the feature set → what pins it, such as ``mailrules 1.4 sha256:…``.

    Raises:
        Refused: ``python_feature``: there is no such function, or no installed distribution holds it.
    """
    return {name: fingerprint(name) for name in feature_set.functions}


def refuse_other_functions(feature_set: FeatureSet, planned: Mapping[str, str]) -> None:
    """Raise Refused ``python_feature`` unless the functions found here are those of the plan."""
    for name, found in fingerprints(feature_set).items():
        if found != planned.get(name):
            what = f"{found} is loaded here, {planned.get(name)} was planned"
            raise _refused(name, what, "install one version everywhere, and restart what loaded another")


def fingerprint(name: str) -> str:
    """The distribution, its version and the digest of the file that holds a function, as this process loaded it."""
    return _pinned(_module_of(_function(name), name))[1]


def call(definition: PythonFeature, columns: Mapping[str, Floats]) -> Floats:
    """The feature of each row, float64 (n,), from the columns it is of.

    Raises:
        PartitionError: ``python_feature``: it raised, or did not give one float for each row.
    """
    import pandas as pd  # noqa: PLC0415 (half a second that only such features need)

    n_rows = len(next(iter(columns.values())))
    frame = pd.DataFrame({name: columns[name].copy() for name in definition.of})
    try:
        given = _function(definition.function)(frame)
        values = np.array(given, np.float64)
    except BatchscoreError:
        raise
    except Exception as error:  # noqa: BLE001 (somebody else's code; its message may quote a row)
        raise _failed(definition.function, f"raised {type(error).__name__}") from None
    if values.shape != (n_rows,):
        raise _failed(definition.function, f"gave {values.shape} values for {n_rows} rows")
    return values


def check_row_wise(feature_set: FeatureSet) -> None:
    """Call every function on rows made up for it: whole, permuted, split and one by one; the bits must be equal.

    Raises:
        Refused: ``python_feature``, naming each function that is not row-wise or fails.
    """
    for definition in feature_set.features.values():
        if isinstance(definition, PythonFeature):
            _check(definition)


def _check(definition: PythonFeature) -> None:
    rng = np.random.default_rng(len(definition.of))
    columns = {
        name: np.where(rng.random(_CHECKED_ROWS) < 0.5, rng.choice(_EDGES, _CHECKED_ROWS), rng.gamma(2.0, 20.0, _CHECKED_ROWS))
        for name in definition.of
    }

    def called(rows: npt.NDArray[np.int64]) -> Floats:
        return call(definition, {name: values[rows] for name, values in columns.items()})

    everything = np.arange(_CHECKED_ROWS)
    try:
        whole = called(everything)
        order = rng.permutation(_CHECKED_ROWS)
        again = {
            "the same rows again": called(everything),
            "rows in another order": called(order)[np.argsort(order)],
            "rows in two parts": np.concatenate([called(everything[:17]), called(everything[17:])]),
            "rows one by one": np.concatenate([called(everything[row : row + 1]) for row in everything]),
        }
        called(everything[:0])
    except PartitionError as error:
        raise _refused(definition.function, error.what, "mend the function") from None
    for how, values in again.items():
        if _bits(values) != _bits(whole):
            raise _refused(definition.function, f"gives other values for {how}", "let a row's value depend on that row alone")


def _bits(values: Floats) -> bytes:
    """A NaN is missing, whatever its own bits."""
    return np.where(np.isnan(values), np.nan, values).tobytes()


@cache
def _function(name: str) -> Callable[[Any], Any]:
    place, _, called = name.partition(":")
    module, _ = _pinned(place)
    function = getattr(module, called, None)
    if not callable(function):
        raise _refused(name, "is no function of that module", "check its name")
    _pinned(_module_of(function, name))
    return function  # type: ignore[no-any-return]


def _module_of(function: Callable[[Any], Any], name: str) -> str:
    """The module that a function stands in, which may not be the one it was named by."""
    return getattr(function, "__module__", None) or name.partition(":")[0]


@cache  # never forgotten: the file may change under the code, which stays as it was loaded
def _pinned(place: str) -> tuple[Any, str]:
    """The module, imported only if an installed distribution holds it, and what pins it at that moment."""
    holders = packages_distributions().get(place.partition(".")[0])
    if not holders:
        raise _refused(place, "is of no installed distribution", "pack it: what is installed has a version that can be pinned")
    try:
        module = import_module(place)
    except Exception as error:  # noqa: BLE001 (whatever a module raises while it is imported)
        raise _refused(
            place, f"cannot be imported: {type(error).__name__}", "install its distribution here and on the workers"
        ) from None
    if module.__file__ is None:
        raise _refused(place, "has no file that could be pinned", "name a function of an ordinary module")
    return module, f"{holders[0]} {version(holders[0])} sha256:{file_sha256(Path(module.__file__))}"


def _refused(name: str, what: str, remedy: str) -> Refused:
    return Refused("python_feature", what, where=name, remedy=remedy)


def _failed(name: str, what: str) -> PartitionError:
    return PartitionError("python_feature", what, where=name, remedy="batchscore features check, then mend the function")
