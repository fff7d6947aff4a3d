"""A model is loaded for the first time by a child process that may die, before the process that scores loads it.

The checks of `bundle` leave a model that looks right in every part. What XGBoost makes of it nobody knows until it did, and
a fault in a C++ library ends the process: then it is a child's, with bounded memory and time, no core file, no secret in its
environment, and no right to write a file. It costs the start of an interpreter and XGBoost's C library: a twentieth of a
second of a worker's first partition, measured; too little to remember the answer anywhere, where it would have to be trusted.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from xgboost.libpath import find_lib_path

from batchscore.errors import Refused
from batchscore.models import first_load
from batchscore.models.bundle import CheckedBundle
from batchscore.models.contract import Matrix
from batchscore.models.golden import differing_rows, read_golden

BASE_BYTES: Final = 3 << 30  # of address space: libraries map much and use little of it
BYTES_PER_MODEL_BYTE: Final = 16  # of memory; five were measured
MAX_SECONDS: Final = 120.0
TOLERANCE: Final = 1e-3  # of contributions against the margin: float32 sums in another order
_REMEDY: Final = "do not use this file: train or save the model again where it was made, and pack it anew"
_survived: Final[set[str]] = set()
_one_at_a_time: Final = threading.Lock()


def require_survivor(model: bytes, rows: Matrix, n_rounds: int, *, where: str, timeout_s: float = MAX_SECONDS) -> Matrix:
    """The margins of ``rows``, float32 (n,), as a child process computed them, in place and by DMatrix alike.

    Args:
        model: The bytes of a model file that `model_file` has let pass.
        rows: float32 (n, F), NaN is missing; at least one.
        n_rounds: Rounds to sum.
        where: Names the model in messages.
        timeout_s: Wall time the child may take.

    Raises:
        Refused: ``model_crash`` (the child died, hung, or gave no one answer), ``bundle_invalid`` (XGBoost refuses the model).
    """
    header = first_load.HEADER.pack(len(model), *rows.shape, n_rounds, BASE_BYTES + BYTES_PER_MODEL_BYTE * len(model))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BATCHSCORE_")}
    try:
        child = subprocess.run(  # noqa: S603 (our own interpreter and file)
            [sys.executable, "-I", "-S", str(Path(first_load.__file__)), _library()],
            input=b"".join((header, model, np.ascontiguousarray(rows, np.float32).tobytes())),
            env=environment | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            capture_output=True,
            check=False,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        raise Refused("model_crash", "loading or scoring the model does not end", where=where, remedy=_REMEDY) from None
    if child.returncode == first_load.NOT_TAKEN:
        raise Refused("bundle_invalid", "XGBoost cannot load the model", where=where, remedy="save and pack it again")
    if child.returncode != 0:
        how = f"signal {-child.returncode}" if child.returncode < 0 else f"exit {child.returncode}"
        raise Refused("model_crash", f"the process that first loaded the model died ({how})", where=where, remedy=_REMEDY)
    return _one_answer(child.stdout, len(rows), where)


@cache
def _library() -> str:
    """The C library that this process would load: the first that XGBoost's own package looks for and finds."""
    return find_lib_path()[0]


def require_survivor_once(checked: CheckedBundle) -> None:
    """`require_survivor` with the golden rows, unless the bundle has survived in this process already."""
    manifest, digest = checked.bundle.manifest, checked.bundle.digest
    with _one_at_a_time:
        if digest not in _survived:
            rows = read_golden(checked.golden, manifest).frame.matrix
            require_survivor(checked.model, rows, manifest.iteration_range[1], where=manifest.name)
            _survived.add(digest)


def _one_answer(said: bytes, n_rows: int, where: str) -> Matrix:
    n_explained = min(first_load.N_EXPLAINED, n_rows)
    if len(said) != 4 * (2 * n_rows + n_explained):
        raise Refused("model_crash", "the process that first loaded the model gave half an answer", where=where, remedy=_REMEDY)
    margins, by_dmatrix, sums = np.split(np.frombuffer(said, np.float32), [n_rows, 2 * n_rows])
    gaps = np.abs(sums.astype(np.float64) - margins[:n_explained])
    if differing_rows(margins, by_dmatrix).any() or not (gaps <= TOLERANCE).all():
        what = "two routes to a margin, or its contributions, do not agree"
        raise Refused("model_crash", what, where=where, remedy=_REMEDY)
    return margins
