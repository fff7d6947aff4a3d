"""A decision that an earlier release froze is compared with one that is made now."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa

from batchscore.decide.table import as_earlier, decision_schema, whole

AS_OF = datetime(2026, 1, 8, tzinfo=UTC)


def test_what_an_earlier_release_froze_is_what_is_decided_now() -> None:
    """Its file has flags alone, in fewer columns, and ``release`` before those that came later."""
    flag = {"account_id": 7, "as_of": AS_OF, "rank": 1, "score": 0.5, "margin": 0.0}
    now = {**flag, "standing": "flag", "second_reviewer": False, "probability": 1.0}
    reserve = {**flag, "account_id": 8, "rank": 2, "standing": "reserve", "second_reviewer": False}
    decided = pa.Table.from_pylist([now, reserve], schema=decision_schema(pa.uint64()))
    decided = decided.append_column("release", pa.array([True, False]))
    names = ["account_id", "as_of", "rank", "score", "margin"]
    earlier = pa.Table.from_pylist([flag], schema=pa.schema([decided.schema.field(name) for name in names]))
    earlier = earlier.append_column("release", pa.array([True]))
    assert as_earlier(decided, earlier.schema).equals(whole(earlier))
    assert as_earlier(decided, decided.schema).equals(whole(decided))
