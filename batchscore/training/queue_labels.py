"""Labels from a queue: what people decided there. Confirmed is 1, cleared 0; the inconclusive says nothing."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from batchscore.features.feature_set import FeatureSet
from batchscore.keys import ACCOUNT_ID, ID_TYPES, MOMENT
from batchscore.spec import RunSpec
from batchscore.store import open_reader
from batchscore.store.schema import refuse_kind
from batchscore.training.labels import LABEL, Labels, labels_of
from batchscore.training.rows import DECIDED_AT


def queue_labels(spec: RunSpec, feature_set: FeatureSet, mature: timedelta | None = None) -> Labels:
    """The decisions of the spec's queue, in its store, as labels with ``decided_at``.

    Raises:
        Refused: ``store_missing``; ``id_kind``; ``label_conflict``: two decisions of one account and moment that differ.
    """
    reader = open_reader(Path(spec.store))
    refuse_kind(reader.id_kind(), feature_set.account_id)
    said = list(reader.decided_labels(spec.policy.queue))
    rows = pa.table(
        {
            ACCOUNT_ID: pa.array([account_id for account_id, _, _ in said], ID_TYPES[feature_set.account_id]),
            DECIDED_AT: pa.array([decided_at for _, _, decided_at in said], MOMENT),
            LABEL: pa.array(np.array([confirmed for _, confirmed, _ in said], np.int8)),
        }
    )
    return labels_of(rows, Path(f"queue {spec.policy.queue}"), mature)
