"""What `batchscore bundle pack` is given in files besides the model: rows of features in Parquet, the rest in YAML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.document import Mistake, read_document
from batchscore.errors import Refused
from batchscore.files import stream_of
from batchscore.models.bounds import Bounds
from batchscore.models.bundle import MAX_GOLDEN_BYTES, ReasonTemplate
from batchscore.models.calibration import Calibration, Isotonic, Sigmoid
from batchscore.models.container import read_limited
from batchscore.models.pack import Categories
from batchscore.spelling import did_you_mean
from batchscore.values import Value


def read_rows(path: Path, *, limit: int = MAX_GOLDEN_BYTES) -> pa.Table:
    """Rows of features from a Parquet file of at most ``limit`` bytes.

    Raises:
        Refused: ``file_missing``, or ``bundle_invalid``: no Parquet, or too large to be a few rows.
    """
    payload = read_limited(path, limit)
    try:
        return pq.read_table(stream_of(payload))
    except (OSError, pa.ArrowException) as error:
        what = "the file does not read as Parquet"
        raise Refused("bundle_invalid", what, where=path.name, remedy="write the rows with pandas.to_parquet") from error


class _Reasons(Value):
    reasons: dict[str, ReasonTemplate]


class _Categories(Value):
    categories: dict[str, Categories]


class _Limits(Value):
    limits: dict[str, Bounds]


def read_limits(path: Path) -> Mapping[str, Bounds]:
    """Limits from a YAML file: ``limits: {feature: {max_missing: 0.5, low: 0, high: 1000, max_outside: 0}}``.

    Raises:
        Refused: ``file_missing``, ``spec_invalid`` with every mistake.
    """
    return read_document(path, _Limits).limits


class _Calibration(Value):
    calibration: Calibration


def read_calibration(path: Path) -> Sigmoid | Isotonic:
    """A calibration from a YAML file: ``calibration: {kind: sigmoid, slope: 1.2, intercept: -0.3}``, or isotonic with its knots.

    Raises:
        Refused: ``file_missing``, ``spec_invalid`` with every mistake.
    """
    return read_document(path, _Calibration).calibration


def read_categories(path: Path) -> Mapping[str, Categories]:
    """Categories from a YAML file: ``categories: {feature: {values: [free, pro], unseen: reject}}``.

    Raises:
        Refused: ``file_missing``, ``spec_invalid`` with every mistake.
    """
    return read_document(path, _Categories).categories


def read_reasons(path: Path, features: Sequence[str]) -> dict[str, ReasonTemplate]:
    """Reasons from a YAML file: ``reasons: {feature: {code: …, sentence: …}}``.

    Raises:
        Refused: ``file_missing``, ``spec_invalid`` with every mistake; a feature that is none is one.
    """

    def strangers(read: _Reasons) -> Iterator[Mistake]:
        for name in read.reasons:
            if name not in features:
                yield Mistake(("reasons", name), "the feature set makes no such feature", did_you_mean(name, features))

    return read_document(path, _Reasons, check=strangers).reasons
