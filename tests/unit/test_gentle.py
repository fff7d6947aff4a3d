"""When a live source is read, waited for or left: decided from what was seen, as a table; and how its settings may stand."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from batchscore.document import parse_document
from batchscore.errors import Refused
from batchscore.sources.gentle import GO, Load, judge, replica_lag
from batchscore.spec import Gentle, OfficeHours, Source, read_spec
from tests.unit.test_spec import GOOD

NOON = datetime(2026, 1, 14, 12, tzinfo=UTC)  # a Wednesday
HOURS = OfficeHours.model_validate({"from": "08:00", "to": "18:00", "zone": "Europe/Berlin"})
LAG = Gentle(replica_lag_s=30)

TABLE: dict[str, tuple[Load, Gentle, str, str]] = {
    "nothing is known": (Load(), Gentle(), "go", ""),
    "at the limit": (Load(threads_running=25, lag_s=30), LAG, "go", ""),
    "busy": (Load(threads_running=26), Gentle(), "wait", "runs 26 threads, the limit is 25"),
    "at the critical load": (Load(threads_running=50), Gentle(), "wait", "runs 50 threads"),
    "above the critical load": (Load(threads_running=51), Gentle(), "end", "its critical load is 50"),
    "behind": (Load(lag_s=30.5), LAG, "wait", "is 30.5 s behind, the limit is 30 s"),
    "behind, and nobody asked": (Load(lag_s=1e6), Gentle(), "go", ""),
    "not replicating": (Load(lag_s=math.inf), LAG, "wait", "does not replicate"),
    "behind and busy: the first is told": (Load(lag_s=31, threads_running=26), LAG, "wait", "behind"),
    "behind and above the critical load": (Load(lag_s=31, threads_running=51), LAG, "end", "critical"),
    "flag": (Load(flag="the file stop"), Gentle(), "wait", "the pause flag is raised: the file stop"),
    "flag above the critical load": (Load(flag="the file stop", threads_running=99), Gentle(), "wait", "pause flag"),
    "office hours": (Load(threads_running=99), Gentle(office_hours=HOURS), "wait", "office hours, until 18:00 Europe/Berlin"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(TABLE))
def test_what_is_done_for_what_was_seen(case: str) -> None:
    load, gentle, move, words = TABLE[case]
    ruling = judge(load, gentle, NOON)
    assert ruling.move == move
    assert words in ruling.reason
    assert (ruling == GO) == (move == "go")


@pytest.mark.parametrize(
    ("opens", "closes", "days", "moment", "inside"),
    [
        ("08:00", "18:00", ["wed"], "2026-01-14T06:59Z", False),
        ("08:00", "18:00", ["wed"], "2026-01-14T07:00Z", True),
        ("08:00", "18:00", ["wed"], "2026-01-14T16:59:59Z", True),
        ("08:00", "18:00", ["wed"], "2026-01-14T17:00Z", False),
        ("08:00", "18:00", ["tue"], "2026-01-14T12:00Z", False),
        ("22:00", "06:00", ["wed"], "2026-01-14T21:00Z", True),
        ("22:00", "06:00", ["wed"], "2026-01-15T04:59Z", True),  # the night belongs to the day on which it begins
        ("22:00", "06:00", ["wed"], "2026-01-14T04:00Z", False),
        ("22:00", "06:00", ["sun"], "2026-01-12T04:00Z", True),  # the night from Sunday to Monday
        ("08:00", "18:00", ["wed"], "2026-07-15T06:00Z", True),  # an hour earlier in summer
    ],
)
def test_office_hours_are_those_of_their_zone(opens: str, closes: str, days: list[str], moment: str, inside: bool) -> None:
    hours = OfficeHours.model_validate({"from": opens, "to": closes, "days": days, "zone": "Europe/Berlin"})
    assert hours.are_at(datetime.fromisoformat(moment)) == inside


# Rows as the servers give them (other columns left out): MariaDB 10.11 with its old words, MySQL 8.4 with its new ones.
RUNNING = {"Connection_name": "", "Slave_IO_Running": "Yes", "Slave_SQL_Running": "Yes", "SQL_Delay": 0}
STATUS: dict[str, tuple[list[dict[str, Any]], float | None]] = {
    "no replica": ([], None),
    "MariaDB, up to date": ([{**RUNNING, "Seconds_Behind_Master": 0}], 0.0),
    "MariaDB, two connections": ([{**RUNNING, "Seconds_Behind_Master": 3}, {**RUNNING, "Seconds_Behind_Master": 41}], 41.0),
    "MariaDB, stopped": ([{**RUNNING, "Slave_SQL_Running": "No", "Seconds_Behind_Master": None}], math.inf),
    "MariaDB, told to lag": ([{**RUNNING, "Seconds_Behind_Master": 3605, "SQL_Delay": 3600}], 5.0),
    "MySQL 8.4": ([{"Channel_Name": "", "Replica_IO_Running": "Yes", "Seconds_Behind_Source": 7, "SQL_Delay": 0}], 7.0),
    "MySQL 8.4, stopped": ([{"Channel_Name": "", "Replica_IO_Running": "No", "Seconds_Behind_Source": None}], math.inf),
}  # fmt: skip


@pytest.mark.parametrize("case", list(STATUS))
def test_the_lag_is_that_of_the_channel_furthest_behind(case: str) -> None:
    rows, lag = STATUS[case]
    assert replica_lag(rows) == lag


@pytest.mark.parametrize(
    ("written", "word"),
    [
        ("{connections: 9}", "less than or equal to 8"),
        ("{connections: 3}", "greater than or equal to 4"),
        ("{threads_running: 60}", "must pause before it ends"),
        ("{replicas: [r1]}", "say how far behind they may be"),
        ("{replica_lag_s: -1}", "greater than or equal to 0"),
        ("{office_hours: {from: '08:00', to: '18:00', zone: Mars/Olympus}}", "is not a time zone"),
        ("{office_hours: {from: '8', to: '18:00', zone: UTC}}", "is not a time of day"),
        ("{office_hours: {from: '08:00', to: '08:00', zone: UTC}}", "are the same time"),
        ("{office_hours: {from: '08:00', to: '18:00', zone: UTC, days: [funday]}}", "days"),
        ("{pause_table: ''}", "pause_table"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(written: str, word: str) -> None:
    with pytest.raises(Refused, match="spec_invalid") as refusal:
        parse_document(f"sql: {{url: crm, table: accounts, gentle: {written}}}", Source, name="spec.yaml")
    assert word in str(refusal.value)


def test_the_settings_of_the_readme_are_the_defaults_and_what_may_be_added() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    told = yaml.safe_load("gentle:" + readme.partition("```yaml\ngentle:")[2].partition("```")[0])["gentle"]
    added = {"replica_lag_s", "replicas", "pause_file", "pause_table", "office_hours"}
    assert Gentle.model_validate({name: value for name, value in told.items() if name not in added}) == Gentle()
    assert Gentle.model_validate(told).model_fields_set == set(Gentle.model_fields)


def test_a_pause_file_lies_beside_the_spec_and_travels_with_it(tmp_path: Path) -> None:
    told = "{url: production, table: accounts, gentle: {pause_file: stop, office_hours: {from: '08:00', to: '17:30', zone: UTC}}}"
    (tmp_path / "spec.yaml").write_text(GOOD.replace("{url: production, table: accounts}", told))
    spec = read_spec(tmp_path / "spec.yaml")
    source = spec.sources["accounts"].sql
    assert source is not None
    assert source.gentle.pause_file == str(tmp_path / "stop")
    assert type(spec).model_validate_json(spec.model_dump_json()) == spec
