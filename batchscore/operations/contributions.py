"""What a bundle makes of some accounts' features: margins, scores, and what each feature gave. Nothing is read or written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batchscore.keys import ACCOUNT_ID
from batchscore.models.contract import Frame, Matrix, conform
from batchscore.models.scorer import Scorer

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Contributions:
    """Of n accounts, in the order of ``ids``. NaN in a row that cannot be scored; ``frame`` says why.

    ``margin``, ``score``: float32 (n,). ``by_feature``: float64 (n, F), in the model's order, in units of margin; ``base``: (n,).
    """

    ids: pa.Array
    frame: Frame
    margin: Matrix
    score: Matrix
    by_feature: Numbers
    base: Numbers

    def by_code(self, codes: Mapping[str, str]) -> dict[str, Numbers]:
        """Reason code → what the features of that code gave together, float64 (n,). ``codes``: feature → code."""
        found: dict[str, Numbers] = {}
        for place, name in enumerate(self.frame.names):
            code = codes[name]
            found[code] = found[code] + self.by_feature[:, place] if code in found else self.by_feature[:, place].copy()
        return found


def contributions_of(frame: pa.Table, scorer: Scorer) -> Contributions:
    """Of the rows of a frame of features.

    Raises:
        Refused: ``feature_contract``, ``column_type``: the model wants other columns.
    """
    conformed = conform(frame, scorer.names, scorer.manifest.category_sets)
    margin = scorer.margin(conformed)
    explained = scorer.contributions(conformed).astype(np.float64)
    return Contributions(
        ids=frame[ACCOUNT_ID].combine_chunks(),
        frame=conformed,
        margin=margin,
        score=scorer.score_of(margin),
        by_feature=explained[:, :-1],
        base=explained[:, -1],
    )


def codes_of(scorer: Scorer) -> dict[str, str]:
    """Feature of the model → its reason code."""
    return {name: scorer.manifest.reasons[name].code for name in scorer.names}
