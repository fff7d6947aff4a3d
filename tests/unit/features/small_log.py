"""Feature sets and event logs of a few lines, for tests that look at one definition at a time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from batchscore.document import parse_document
from batchscore.features.feature_set import FeatureSet
from batchscore.features.frame import make_frame
from batchscore.features.rollup import roll_up
from batchscore.features.windows import prepare
from batchscore.keys import sort_by_key

MOMENT = pa.timestamp("us", tz="UTC")
START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def feature_set(features: str, *, events: str = "", accounts: str = "", grain: str = "1d") -> FeatureSet:
    """A feature set over ``mails`` of integer accounts: ``features`` one a line, and more keys of the two tables."""
    lines = "\n".join(f"  {line.strip()}" for line in features.strip().splitlines())
    text = f"""feature_set: small
version: 1
account_id: integer
grain: {grain}
accounts: {{table: accounts, key: id, created_at: made{accounts}}}
events: [{{table: mails, key: id, event_at: at, known_at: seen, distinct_limit: 16{events}}}]
features:
{lines}
"""
    return parse_document(text, FeatureSet, name="features.yaml", check=FeatureSet.mistakes)


def log(*days: float, ids: Sequence[int] | None = None, known: Sequence[float] | None = None, **columns: pa.Array) -> pa.Table:
    """Canonical events at ``days`` after `START`, of account 1 and known at once unless said otherwise."""

    def moments(offsets: Sequence[float]) -> pa.Array:
        return pa.array([START + offset * DAY for offset in offsets], MOMENT)

    return pa.table(
        {
            "account_id": pa.array([1] * len(days) if ids is None else ids, pa.uint64()),
            "event_at": moments(days),
            "known_at": moments(days if known is None else known),
            **columns,
        }
    )


def values(features: FeatureSet, events: pa.Table, *, day: int, pieces: int = 1) -> dict[str, Any]:
    """The features of account 1, ``day`` days after `START`, with the log rolled up in so many pieces."""
    rolled = pa.concat_tables([roll_up(events.slice(at, len(events) // pieces + 1), features, "mails") for at in range(
        0, max(1, len(events)), len(events) // pieces + 1)])  # fmt: skip
    accounts = pa.table({"account_id": pa.array([1], pa.uint64()), "created_at": pa.array([START], MOMENT)})
    prepared = prepare(accounts["account_id"].combine_chunks(), sort_by_key(rolled), features, "mails")
    (row,) = make_frame(accounts, {"mails": prepared}, START + day * DAY, features).to_pylist()
    return {name: row[name] for name in features.names}
