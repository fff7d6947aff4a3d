"""The child of `probe`: loads a model, scores and explains some rows, and says what came out. It may die; that is what it is for.

It imports nothing of batchscore, so that it starts in the time XGBoost takes to import. On standard input: `HEADER`, the
model's bytes, float32 rows. On standard output: margins in place, by DMatrix, and the sums of the contributions of the first
`N_EXPLAINED` rows, float32 each.
"""

from __future__ import annotations

import resource
import struct
import sys

import numpy as np
import xgboost as xgb

HEADER = struct.Struct("<5Q")  # bytes of the model, rows, features, rounds, bytes of address space
N_EXPLAINED = 4  # rows; explaining costs a thousand times what scoring does
NOT_TAKEN = 3  # exit code: XGBoost itself refuses the model
MAX_CPU_S = 60


def main() -> int:
    """Do what the module says, within limits."""
    read = sys.stdin.buffer.read
    n_model, n_rows, n_features, n_rounds, n_bytes = HEADER.unpack(read(HEADER.size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (n_bytes, n_bytes))
    model = bytearray(read(n_model))
    rows = np.frombuffer(read(), np.float32).reshape(n_rows, n_features)
    try:
        booster = xgb.Booster({"nthread": 1}, model_file=model)
        rounds = (0, n_rounds)
        names, types = booster.feature_names, booster.feature_types
        matrix = xgb.DMatrix(rows, missing=np.nan, feature_names=names, feature_types=types, enable_categorical=True, nthread=1)
        few = matrix.slice(np.arange(min(N_EXPLAINED, n_rows)))
        answers = (
            booster.inplace_predict(rows, predict_type="margin", iteration_range=rounds, missing=np.nan, validate_features=False),
            booster.predict(matrix, output_margin=True, iteration_range=rounds),
            booster.predict(few, pred_contribs=True, iteration_range=rounds).sum(axis=1),
        )
    except (xgb.core.XGBoostError, ValueError):
        return NOT_TAKEN
    for answer in answers:
        sys.stdout.buffer.write(np.ascontiguousarray(answer, np.float32).tobytes())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
