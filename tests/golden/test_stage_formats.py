"""A stage's output for fixed input is what it was when `STAGE_FORMAT` was last raised: a change here must raise it.

The digests are of values, not of files: a new pyarrow may write other bytes for the same rows.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pyarrow as pa

from batchscore.document import parse_document
from batchscore.features.feature_set import FeatureSet
from batchscore.features.rollup import roll_up
from batchscore.plan import STAGE_FORMAT, Stage

FEATURES = """
feature_set: golden
version: 1
account_id: string
accounts: {table: accounts, key: id}
events: [{table: mails, key: id, event_at: at, known_at: known}]
features:
  n: {count: mails}
  total: {sum: mails.bytes}
  least: {min: mails.bytes}
  most: {max: mails.ratio}
  different: {distinct: mails.recipient}
  spread: {std: mails.bytes}
  lately: {last: mails.ratio}
  top: {top_share: mails.recipient}
  large: {sum: mails.bytes, where: [[ratio, ">=", 0]]}
"""
GOLDEN_ROLLUP = "43bbaf891ebb4f760f87851c7fc7211a1fb8d410c5fbbe3fba92699c18ec3b8a"


def test_the_rollup_of_a_fixed_log_is_that_of_its_stage_format() -> None:
    moments = [datetime(2026, 1, day, hour, tzinfo=UTC) for day, hour in ((1, 0), (1, 23), (2, 0), (2, 5), (1, 1))]
    events = pa.table(
        {
            "account_id": ["b", "a", "a", "é", "a"],
            "event_at": pa.array(moments, pa.timestamp("us", "UTC")),
            "known_at": pa.array([*moments[:4], datetime(2026, 1, 3, tzinfo=UTC)], pa.timestamp("us", "UTC")),
            "bytes": pa.array([1, None, 3, 4, 5], pa.int64()),
            "ratio": pa.array([0.5, -0.0, float("nan"), None, 2.5]),
            "recipient": ["x", "y", "x", None, "z"],
        }
    )
    rolled = roll_up(events, parse_document(FEATURES, FeatureSet, name="features.yaml"), "mails")
    assert STAGE_FORMAT[Stage.ROLLUP] == 3
    assert hashlib.sha256(repr((rolled.schema.to_string(), rolled.to_pylist())).encode()).hexdigest() == GOLDEN_ROLLUP
