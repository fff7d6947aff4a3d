"""What building a training frame reports. A value: nothing is read here."""

from __future__ import annotations

from datetime import datetime

from batchscore.spec import Value


class BuiltFrame(Value):
    """What `build_frame` wrote. ``n_labelled`` and ``n_positive`` count rows; ``n_unused`` labels of accounts not among them."""

    path: str
    as_of: datetime
    feature_set: str
    feature_set_digest: str
    n_rows: int
    n_features: int
    n_labelled: int | None = None
    n_positive: int | None = None
    n_unused: int | None = None
