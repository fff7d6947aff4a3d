"""Features do not depend on how a file writes its times: unit, zone, summer time and leap days come to the same moments."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.document import parse_document
from batchscore.features.accounts import Accounts
from batchscore.features.feature_set import FeatureSet
from batchscore.features.frame import make_frames
from batchscore.features.rollup import roll_up
from batchscore.features.windows import prepare
from batchscore.sources.canonical import Place, canonical_events

BERLIN = ZoneInfo("Europe/Berlin")
AS_OFS = [datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 3, 31, tzinfo=UTC)]
AS_OFS += [datetime(2024, 4, 1, tzinfo=UTC), datetime(2024, 10, 27, tzinfo=UTC), datetime(2024, 10, 28, tzinfo=UTC)]
ACCOUNTS = pa.table({"account_id": pa.array([1, 2], pa.uint64())})


def feature_set(at: str) -> FeatureSet:
    text = f"""
feature_set: times
version: 1
account_id: integer
accounts: {{table: accounts, key: id}}
events: [{{table: mails, key: id, event_at: {at}, known_at: event_at}}]
features:
  n_1d: {{count: mails, window: 1d}}
  n_30d: {{count: mails, window: 30d}}
  active: {{days_active: mails, window: 30d}}
  quiet: {{time_since: mails}}
  last: {{last: mails.bytes}}
"""
    return parse_document(text, FeatureSet, name="features.yaml", check=FeatureSet.mistakes)


def is_unique_in_berlin(moment: datetime) -> bool:
    local = moment.astimezone(BERLIN)
    return local.replace(fold=0).utcoffset() == local.replace(fold=1).utcoffset()


EDGES = [
    as_of + timedelta(hours=hours, seconds=off) for as_of in AS_OFS for hours in (-2, -1, 0, 1, 2) for off in (-1, 0, 1)
]  # midnights in UTC and in Berlin, and the hours in which Berlin changes its clocks
MOMENTS = st.one_of(st.sampled_from(EDGES), st.datetimes(datetime(2024, 1, 20), datetime(2024, 11, 1)).map(
    lambda moment: moment.replace(microsecond=0, tzinfo=UTC))).filter(is_unique_in_berlin)  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([1, 2]), MOMENTS, st.integers(0, 99)), max_size=20))
def test_equal_moments_give_equal_features_however_they_are_written(mails: list[tuple[int, datetime, int]]) -> None:
    moments = [moment for _, moment, _ in mails]
    local = [moment.astimezone(BERLIN).replace(tzinfo=None) for moment in moments]
    forms = {
        "at": pa.array(moments, pa.timestamp("us", "UTC")),
        "{column: at, unit: s}": pa.array([int(moment.timestamp()) for moment in moments], pa.int64()),
        "{column: at, unit: ms}": pa.array([int(moment.timestamp()) * 1000 for moment in moments], pa.int64()),
        "{column: at, zone: Europe/Berlin}": pa.array(local, pa.timestamp("ns")),
        "{column: at}": pa.array(moments, pa.timestamp("us", "UTC")).cast(pa.timestamp("ms", "America/New_York")),
        "{column: at, zone: UTC}": pa.array([moment.replace(tzinfo=None) for moment in moments], pa.timestamp("s")),
    }
    found = []
    for at, column in forms.items():
        features = feature_set(at)
        ids, sizes = pa.array([who for who, _, _ in mails], pa.int64()), pa.array([size for _, _, size in mails], pa.int64())
        raw = pa.table({"id": ids, "at": column, "bytes": sizes})
        rows = canonical_events(raw, features.events[0], features.column_names("mails"), "integer", Place("mails"))
        assert len(rows.rejects) == 0
        prepared = prepare(ACCOUNTS["account_id"].combine_chunks(), roll_up(rows.table, features, "mails"), features, "mails")
        frames = make_frames(Accounts(ACCOUNTS), {"mails": prepared}, AS_OFS, features)
        found.append([frame[name].to_numpy().tobytes() for frame in frames for name in features.names])
    assert all(bits == found[0] for bits in found)


def test_a_leap_day_is_a_day_like_any_other() -> None:
    features = feature_set("at")
    moments = [datetime(2024, 2, 28, 12, tzinfo=UTC), datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 2, 29, 23, tzinfo=UTC)]
    raw = pa.table({"id": [1, 1, 1], "at": pa.array(moments, pa.timestamp("us", "UTC")), "bytes": [1, 2, 3]})
    rows = canonical_events(raw, features.events[0], ["bytes"], "integer", Place("mails"))
    prepared = prepare(ACCOUNTS["account_id"].combine_chunks(), roll_up(rows.table, features, "mails"), features, "mails")
    first, second, *_ = make_frames(Accounts(ACCOUNTS), {"mails": prepared}, AS_OFS, features)
    assert (first["n_1d"].to_pylist()[0], first["active"].to_pylist()[0]) == (1, 1)
    assert (second["n_1d"].to_pylist()[0], second["active"].to_pylist()[0]) == (2, 2)
    assert second["quiet"].to_pylist()[0] == pytest.approx(1 / 24)
