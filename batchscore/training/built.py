"""What building a training frame reports. A value: nothing is read here."""

from __future__ import annotations

from datetime import datetime

from batchscore.values import Value


class BuiltFrame(Value):
    """What `build_frame` wrote.

    ``n_absent``: pairs that were asked for, of accounts that did not exist at their as-of. ``n_labelled`` and ``n_positive``
    count rows; ``n_unused`` labels that stand beside none. Rows without a label: ``n_early`` of accounts that were decided on
    before the as-of only, ``n_immature`` of those whose decisions are not mature. ``n_changed``: rows whose decisions differ, of
    which the latest counts.
    """

    path: str
    as_ofs: tuple[datetime, ...]
    feature_set: str
    feature_set_digest: str
    n_rows: int
    n_features: int
    n_absent: int | None = None
    n_labelled: int | None = None
    n_positive: int | None = None
    n_unused: int | None = None
    n_early: int | None = None
    n_immature: int | None = None
    n_changed: int | None = None
