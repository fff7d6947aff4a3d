"""A run that will be late says so everywhere and goes on; accounts that wait longest for a score come first; no bit changes."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from batchscore.deadline import Deadline
from batchscore.dispatch import forecast
from batchscore.dispatch.forecast import Forecast, usual_seconds
from batchscore.dispatch.limits import Limits
from batchscore.errors import Interrupted
from batchscore.events import DeadlineJudged, Event
from batchscore.executors.inline import InlineExecutor
from batchscore.observe.logs import LogObserver
from batchscore.observe.metrics import MetricsObserver
from batchscore.operations.report import report_of, write_page
from batchscore.pipeline import run
from batchscore.plan import Stage
from batchscore.planner import make_plan
from batchscore.ports import RunRow
from batchscore.store import open_reader, open_store
from tests.commands import call
from tests.fake_attempts import AtTheNth, Noted, Poisoned
from tests.run_digest import run_digest
from tests.small_world import SmallWorld, make_small_world

FAR = Deadline(moment=datetime.now(UTC) + timedelta(days=1))


@pytest.fixture(autouse=True)
def told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "TOLD_AFTER_S", 0.0)


class Walk:
    """Walks a world's spec and keeps the order in which scores were attempted; ``broken``: of this partition none is made."""

    def __init__(self, world: SmallWorld) -> None:
        self.world = world
        self.heard: list[Event] = []
        self._made = Noted()

    @property
    def order(self) -> list[int]:
        return self._made.numbers(Stage.SCORE)

    def __call__(self, deadline: Deadline | None, *, stop_at: int | None = None, broken: int = -1, **changes: str) -> RunRow:
        limits = Limits(deadline=deadline)
        self._made = Poisoned((Stage.SCORE, broken)) if stop_at is None else AtTheNth(stop_at, limits.stop.set, Stage.SCORE)
        plan = make_plan(self.world.spec(**changes))
        store = open_store(Path(plan.spec.store), self.world.kind)
        return run(
            plan,
            executor=InlineExecutor(self._made),
            store=store,
            observer=lambda event: self.heard.append(event),  # noqa: PLW0108 (an observer names its argument)
            limits=limits,
        )


@pytest.fixture
def walk(tmp_path: Path) -> Walk:
    return Walk(make_small_world(tmp_path))


def test_a_run_that_is_late_is_told_by_event_log_metric_status_and_report_and_finishes(
    walk: Walk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    past = datetime.now(UTC) - timedelta(minutes=41)
    row = walk(Deadline(moment=past))
    assert row.state == "finished"
    judged = [event for event in walk.heard if isinstance(event, DeadlineJudged)]
    assert len(judged) == 1, "told once, not once a look"
    assert 41 * 60 <= judged[0].late_s < (datetime.now(UTC) - past).total_seconds() + 60
    assert row.late_since is not None
    metrics = MetricsObserver("spec")
    metrics(judged[0])
    assert metrics.registry.get_sample_value("batchscore_run_late_seconds", {"spec": "spec"}) == judged[0].late_s
    with caplog.at_level(logging.INFO, "batchscore"):  # as `configuration` has it, whatever level the root has
        LogObserver("spec")(judged[0])
    assert caplog.records[-1].levelname == "WARNING"
    assert "min LATE, told first at " in call("status", row.run_id, "--store", tmp_path / "store").output
    shown = json.loads(call("status", row.run_id, "--store", tmp_path / "store", "--json").stdout)["run"]
    assert (shown["deadline_at"][:16], bool(shown["late_since"])) == (f"{past:%Y-%m-%dT%H:%M}", True)
    report = report_of(open_reader(tmp_path / "store"), row.run_id, "store")
    assert report.run.late_since is not None
    assert "min LATE; told first at" in write_page(report, tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_run_in_time_tells_nothing_and_a_deadline_stays_the_runs(walk: Walk) -> None:
    with pytest.raises(Interrupted):
        walk(FAR, stop_at=2)
    row = walk(None)
    assert (row.state, row.deadline_at, row.late_since) == ("finished", FAR.moment, None)
    assert not [event for event in walk.heard if isinstance(event, DeadlineJudged)]


def test_who_waits_longest_for_a_score_comes_first_and_the_bits_are_the_same(walk: Walk, tmp_path: Path) -> None:
    undisturbed = walk(None, store="other", as_of="[2026-01-15]")
    assert walk.order == sorted(walk.order)
    walk(None, as_of="[2026-01-13]", release="none")
    walk(None, as_of="[2026-01-14]", release="none", broken=3)
    with pytest.raises(Interrupted):  # what this one scored is scored as of a newer date
        walk(None, as_of="[2026-01-14]", release="none", stop_at=2, policy="{queue: abuse, budget: 20}", partition_rows="60")
    late = walk(
        FAR, as_of="[2026-01-15]", partition_rows="50", policy="{queue: abuse, threshold: 0.2, budget: 20}", release="latest"
    )
    assert walk.order[0] == 3, "the last night set it aside"
    assert walk.order[1:] == sorted(set(walk.order) - {3})
    assert run_digest(tmp_path / "store", late.run_id) == run_digest(tmp_path / "other", undisturbed.run_id)


def test_stages_to_come_count_as_long_as_they_took_the_last_time(walk: Walk, tmp_path: Path) -> None:
    row = walk(None)
    reader = open_reader(tmp_path / "store")
    usual = usual_seconds(row, reader)
    assert {"freeze", "rollup", "score", "reasons", "driver"} <= usual.keys()
    assert usual_seconds(None, reader) == {}
    store = open_store(tmp_path / "store", "integer")
    handle, _ = store.open(make_plan(walk.world.spec()), owner="x", again=True)
    judged: list[Event] = []

    def heard(event: Event) -> None:
        judged.append(event)

    deadline_at = datetime.now(UTC) + timedelta(minutes=30)
    ahead = Forecast(handle, store, heard, deadline_at, {"score": 3600.0, "driver": 60.0})
    assert ahead.left_s() == pytest.approx(3660.0, abs=1)
    ahead.look()
    ahead.look()
    (event,) = judged
    assert isinstance(event, DeadlineJudged)
    assert event.late_s == pytest.approx(31 * 60, abs=2)
    assert store.reader().run(handle.run_id).late_since is not None
    store.note_expected(handle, deadline_at, late=False)
    assert store.reader().run(handle.run_id).late_since is None
