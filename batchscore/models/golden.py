"""Golden rows: feature rows with the margins and scores they gave when packed. Any machine must give the same bits.

The file holds one float32 column per feature, in the model's order, then `MARGIN` and `SCORE`. It is read only after its
SHA-256 was checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.errors import Refused
from batchscore.files import stream_of
from batchscore.models.contract import Frame, Matrix, conform

if TYPE_CHECKING:
    from batchscore.models.bundle import Manifest

MARGIN: Final = "expected margin"
SCORE: Final = "expected score"
N_RIDERS: Final = 16  # computed once more in every partition: a few milliseconds
MAX_ROWS: Final = 10_000  # computed on every worker before its first partition: a second or two of a large model


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """``margins`` and ``scores``: float32 (n,), as packed."""

    frame: Frame
    margins: Matrix
    scores: Matrix

    def few(self, n: int) -> Golden:
        """At most ``n`` of the rows, evenly spaced."""
        places = spaced(len(self.frame), n)
        return Golden(self.frame.take(places), self.margins[places], self.scores[places])

    def n_differing(self, margins: Matrix, scores: Matrix) -> int:
        """How many rows have other bits than these."""
        return int((differing_rows(margins, self.margins) | differing_rows(scores, self.scores)).sum())


def golden_table(frame: Frame, margins: Matrix, scores: Matrix) -> pa.Table:
    """The table that `read_golden` reads back."""
    columns = {name: frame.matrix[:, place] for place, name in enumerate(frame.names)}
    return pa.table({**columns, MARGIN: margins, SCORE: scores})


def read_golden(payload: bytes, manifest: Manifest) -> Golden:
    """The golden rows of a bundle, from the checked bytes of their file.

    Raises:
        Refused: ``bundle_invalid``: not the rows the manifest tells of.
    """
    try:
        with pq.ParquetFile(stream_of(payload), page_checksum_verification=True) as file:
            if file.metadata.num_rows != manifest.n_golden or manifest.n_golden > MAX_ROWS:
                raise _invalid("the number of rows is not the manifest's", manifest)
            table = file.read()
    except (OSError, pa.ArrowException) as error:
        raise _invalid("the file does not decode", manifest) from error
    if table.schema.remove_metadata() != _schema(manifest.names):
        raise _invalid("the columns are not the model's features, a margin and a score", manifest)
    frame = conform(table, manifest.names)
    if frame.nonfinite.any():
        raise _invalid("a row holds an infinite feature", manifest)
    return Golden(frame, table.column(MARGIN).to_numpy(), table.column(SCORE).to_numpy())


def spaced(n_rows: int, n: int) -> npt.NDArray[np.int64]:
    """At most ``n`` of ``n_rows`` places, evenly spaced and ascending."""
    return np.unique(np.linspace(0, n_rows - 1, min(n, n_rows)).astype(np.int64))


def differing_rows(found: Matrix, expected: Matrix) -> npt.NDArray[np.bool_]:
    """Where two float32 (n,) arrays differ in a bit (so that -0.0 is not 0.0, and NaN is itself)."""
    bits, expected_bits = (np.ascontiguousarray(values, np.float32).view(np.uint32) for values in (found, expected))
    differing: npt.NDArray[np.bool_] = bits != expected_bits
    return differing


def _schema(names: tuple[str, ...]) -> pa.Schema:
    return pa.schema([(name, pa.float32()) for name in (*names, MARGIN, SCORE)])


def _invalid(what: str, manifest: Manifest) -> Refused:
    return Refused("bundle_invalid", f"golden rows: {what}", where=manifest.name, remedy="pack the bundle again")
