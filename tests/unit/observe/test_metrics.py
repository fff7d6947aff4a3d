"""Events as metrics: what each counts, that labels stay few, and where metrics may be read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from batchscore import events
from batchscore.errors import Refused
from batchscore.observe import metrics as metrics_module
from batchscore.observe.metrics import MetricsObserver, leave_textfile, parse_address, refuse_textfile, served

RUN = "r-00000000-1"


@pytest.fixture
def metrics() -> MetricsObserver:
    observer = MetricsObserver("nightly")
    observer(events.StageStarted(run_id=RUN, stage="score", n_partitions=4, n_rows=400, n_done=1, n_rows_done=100))
    observer(events.PartitionCommitted(run_id=RUN, stage="score", number=1, n_rows=100, seconds=2.0))
    observer(events.PartitionFailed(run_id=RUN, stage="score", number=2, reason="worker_lost", quarantined=False))
    observer(events.PartitionFailed(run_id=RUN, stage="score", number=2, reason="memory_limit", quarantined=True))
    observer(events.PartitionAlerted(run_id=RUN, stage="score", number=3, alert="feature_nulls mails_7d"))
    return observer


def value(metrics: MetricsObserver, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"batchscore_{name}", {"spec": "nightly", **labels})


def test_progress_counts_what_was_done_before_and_rates_do_not(metrics: MetricsObserver) -> None:
    assert value(metrics, "run_rows_done", stage="score") == 200
    assert value(metrics, "run_rows_committed_total", stage="score") == 100
    assert value(metrics, "run_partitions_done", stage="score") == 2


def test_failures_are_told_by_reason_and_alerts_without_the_feature(metrics: MetricsObserver) -> None:
    assert value(metrics, "run_failed_attempts_total", stage="score", reason="worker_lost") == 1
    assert value(metrics, "run_failed_attempts_total", stage="score", reason="memory_limit") == 1
    assert value(metrics, "run_quarantined_partitions", stage="score") == 1
    assert value(metrics, "run_alerts_total", alert="feature_nulls") == 1


def test_the_end_is_told_with_its_exit_code_and_the_watermark(metrics: MetricsObserver) -> None:
    assert value(metrics, "run_active") == 1
    metrics(events.Waiting(run_id=RUN, reason="lag"))
    assert value(metrics, "run_waiting") == 1
    metrics.ended(4, datetime(2026, 1, 2, tzinfo=UTC))
    assert (value(metrics, "run_active"), value(metrics, "run_exit_code"), value(metrics, "run_waiting")) == (0, 4, 0)
    assert value(metrics, "sweep_watermark_timestamp_seconds") == datetime(2026, 1, 2, tzinfo=UTC).timestamp()


def test_what_a_run_decided_proved_and_released_is_told_as_it_stands(metrics: MetricsObserver) -> None:
    metrics(events.InputJudged(run_id=RUN, n_days=30, n_new=0, n_held=2, n_approved=1, warnings=()))
    metrics(events.DecisionRecorded(run_id=RUN, n_selected=40, n_to_release=20))
    metrics(events.Proven(run_id=RUN, closes=True, n_as_ofs=2))
    metrics(events.Released(run_id=RUN, n_flags=12, n_overtaken=8, n_evidence=3, n_suppressed=1))
    metrics(events.DeadlineJudged(run_id=RUN, deadline="2026-01-15T06:00Z", expected="2026-01-15T07:00Z", late_s=3_600.0))
    metrics(events.StageFinished(run_id=RUN, stage="score", n_quarantined=1, seconds=9.5))
    assert (value(metrics, "run_input_findings", stands="held"), value(metrics, "run_input_findings", stands="approved")) == (
        2,
        1,
    )
    outcomes = {"selected": 40, "to_release": 20, "released": 12, "overtaken": 8, "evidence": 3, "suppressed": 1}
    assert {outcome: value(metrics, "run_flags", outcome=outcome) for outcome in outcomes} == outcomes
    assert value(metrics, "run_proof_closes") == 1
    metrics(events.Proven(run_id=RUN, closes=False, n_as_ofs=2))
    assert value(metrics, "run_proof_closes") == 0
    assert value(metrics, "run_late_seconds") == 3_600
    assert (value(metrics, "run_stage_seconds", stage="score"), value(metrics, "run_attempt_seconds_sum", stage="score")) == (
        9.5,
        2,
    )


def test_waits_are_counted_while_they_last_and_events_say_when_anything_last_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(metrics_module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    metrics = MetricsObserver("nightly")
    assert value(metrics, "run_waited_seconds_total") == 0
    for now, reason in ((110.0, "lag"), (125.0, "office hours"), (130.0, "")):
        clock[0] = now
        metrics(events.Waiting(run_id=RUN, reason=reason))
    clock[0] = 500.0
    assert value(metrics, "run_waited_seconds_total") == 20
    assert value(metrics, "run_waiting") == 0
    metrics.ended(0, None)
    assert value(metrics, "run_waited_seconds_total") == 20
    moments = [value(metrics, f"run_{what}_timestamp_seconds") for what in ("opened", "last_event", "ended")]
    assert all(moments)
    assert moments == sorted(moments, key=lambda moment: moment or 0.0)
    assert value(metrics, "sweep_watermark_timestamp_seconds") is None, "a spec that was never swept has none"


def test_no_label_names_a_run_a_partition_or_an_account(metrics: MetricsObserver) -> None:
    labels = {name for metric in metrics.registry.collect() for sample in metric.samples for name in sample.labels}
    assert labels <= {"spec", "stage", "reason", "alert", "outcome", "stands", "le"}


def test_a_series_that_an_alert_asks_for_is_there_before_anything_happens() -> None:
    fresh = MetricsObserver("nightly")
    assert value(fresh, "run_failed_attempts_total", stage="score", reason="worker_lost") == 0
    assert value(fresh, "run_quarantined_partitions", stage="score") == 0


@pytest.mark.parametrize("text", ["127.0.0.1:9108", "localhost:1", "[::1]:65535"])
def test_loopback_needs_no_flag(text: str) -> None:
    assert parse_address(text, off_host=False)[1] == int(text.rpartition(":")[2])


@pytest.mark.parametrize("text", ["0.0.0.0:9108", "[::]:9108", "10.1.2.3:9108", "metrics.example:9108"])
def test_an_address_that_others_reach_needs_the_flag(text: str) -> None:
    with pytest.raises(Refused, match="metrics_open"):
        parse_address(text, off_host=False)
    assert parse_address(text, off_host=True)[1] == 9108


@pytest.mark.parametrize("text", ["9108", ":9108", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:70000", "127.0.0.1:x"])
def test_what_is_no_address_is_a_mistake(text: str) -> None:
    with pytest.raises(ValueError, match="no address"):
        parse_address(text, off_host=True)


@pytest.fixture
def port() -> Iterator[int]:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_a_taken_port_is_refused_before_the_run(port: int) -> None:
    with pytest.raises(Refused, match="telling_failed"), served(CollectorRegistry(), "127.0.0.1", port):
        pass


def test_a_textfile_is_whole_readable_by_others_and_named_as_its_reader_wants(metrics: MetricsObserver, tmp_path: Path) -> None:
    place = tmp_path / "nightly.prom"
    refuse_textfile(place)
    leave_textfile(metrics.registry, place)
    assert 'batchscore_run_active{spec="nightly"} 1.0' in place.read_text()
    assert place.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["nightly.prom"]
    for wrong in (tmp_path / "nightly.txt", tmp_path / "absent" / "nightly.prom"):
        with pytest.raises(Refused, match="telling_failed"):
            refuse_textfile(wrong)
