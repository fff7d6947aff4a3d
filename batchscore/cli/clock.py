"""What day it is, for commands whose as-of is not said."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchscore.spec import RunSpec


def today(spec: RunSpec) -> datetime:
    """The last whole grain of the spec's feature set. The one place that reads the clock for an as-of."""
    from batchscore.features.feature_set import read_feature_set
    from batchscore.operations.sweep import latest_whole

    return latest_whole(datetime.now(UTC), read_feature_set(Path(spec.feature_set)).grain)
