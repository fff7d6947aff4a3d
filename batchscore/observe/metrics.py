"""A run's events as Prometheus metrics: served while the run lives, left as a node-exporter textfile when it ends.

Labels are few and bounded: the spec's name, stages, reasons of `errors.CATALOGUE`. No run id (one series a night, for ever), no
account id. What a textfile says holds until the next run of the spec: when it ended and how, how far its sweeps have come.
prometheus-client is an extra (``metrics``), imported when metrics are asked for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from batchscore.errors import ALERTS, Refused
from batchscore.events import (
    DeadlineJudged,
    DecisionRecorded,
    Event,
    InputJudged,
    PartitionAlerted,
    PartitionCommitted,
    PartitionFailed,
    Proven,
    Released,
    RunOpened,
    StageFinished,
    StageStarted,
    Waiting,
)
from batchscore.loopback import is_loopback
from batchscore.plan import Stage

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

ATTEMPT_BUCKETS_S: Final = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)
READABLE: Final = 0o644  # node_exporter is another user


class MetricsObserver:
    """Counts what happens during one command's runs of one spec.

    Raises:
        Refused: ``extra_missing``.
    """

    def __init__(self, spec: str) -> None:
        _require_prometheus()
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry: CollectorRegistry = CollectorRegistry()
        self._spec = spec
        self._waiting_since: float | None = None

        def gauge(name: str, says: str, *labels: str) -> Gauge:
            return Gauge(f"batchscore_{name}", says, ("spec", *labels), registry=self.registry)

        def counter(name: str, says: str, *labels: str) -> Counter:
            return Counter(f"batchscore_{name}", says, ("spec", *labels), registry=self.registry)

        self._active = gauge("run_active", "1 while a driver walks a run of the spec")
        self._opened = gauge("run_opened_timestamp_seconds", "When a driver last took up a run")
        self._heard = gauge("run_last_event_timestamp_seconds", "When anything last happened in the run")
        self._ended = gauge("run_ended_timestamp_seconds", "When the command ended")
        self._exit_code = gauge("run_exit_code", "How it ended: 0 done, 1 failed, 2 refused, 3 quarantine, 4 held, 5 interrupted")
        self._watermark = gauge("sweep_watermark_timestamp_seconds", "All input known before then has been scored by a sweep")
        self._late = gauge("run_late_seconds", "How long after its deadline the run is expected to be over; 0: it is in time")
        self._waiting = gauge("run_waiting", "1 while the run waits for a live source, for workers or a database")
        self._waited = counter("run_waited_seconds", "Seconds the run has waited so far")
        self._partitions = gauge("run_partitions", "Partitions of the stage", "stage")
        self._done = gauge("run_partitions_done", "Partitions of the stage committed, now or before", "stage")
        self._rows = gauge("run_rows", "Rows of the stage", "stage")
        self._rows_done = gauge("run_rows_done", "Rows of the stage committed, now or before", "stage")
        self._committed = counter("run_rows_committed", "Rows committed by this driver", "stage")
        self._quarantined = gauge("run_quarantined_partitions", "Partitions of the stage set aside", "stage")
        self._failed = counter("run_failed_attempts", "Attempts that failed, and workers lost under one", "stage", "reason")
        self._alerts = counter("run_alerts", "What attempts found amiss and put right, or went on with", "alert")
        self._stage_seconds = gauge("run_stage_seconds", "How long the stage took", "stage")
        self._attempt_seconds = Histogram(
            "batchscore_run_attempt_seconds",
            "How long a committed attempt took on its worker",
            ("spec", "stage"),
            buckets=ATTEMPT_BUCKETS_S,
            registry=self.registry,
        )
        self._findings = gauge("run_input_findings", "Findings of the input gate, by whether a person approved them", "stands")
        self._closes = gauge("run_proof_closes", "1 when every account is accounted for once, 0 when not")
        self._flags = gauge("run_flags", "Flags: selected by decide, to release, released, overtaken", "outcome")
        self._from_the_start()

    def _from_the_start(self) -> None:
        """Series that an alert asks for exist before anything happens: a counter's first increase is seen as one."""
        self._active.labels(self._spec).set(1)
        self._opened.labels(self._spec).set_to_current_time()
        self._heard.labels(self._spec).set_to_current_time()
        self._late.labels(self._spec)
        self._waiting.labels(self._spec)
        self._waited.labels(self._spec)
        for stage in Stage:
            self._failed.labels(self._spec, stage, "worker_lost")
            self._quarantined.labels(self._spec, stage)
        for alert in ALERTS:
            self._alerts.labels(self._spec, alert)

    def __call__(self, event: Event) -> None:  # noqa: C901 (one case, one event)
        """Count one event."""
        spec = self._spec
        self._heard.labels(spec).set_to_current_time()
        match event:
            case DeadlineJudged():
                self._late.labels(spec).set(event.late_s)
            case RunOpened():
                self._opened.labels(spec).set_to_current_time()
            case StageStarted():
                self._start(event)
            case PartitionCommitted():
                self._done.labels(spec, event.stage).inc()
                self._rows_done.labels(spec, event.stage).inc(event.n_rows)
                self._committed.labels(spec, event.stage).inc(event.n_rows)
                self._attempt_seconds.labels(spec, event.stage).observe(event.seconds)
            case PartitionAlerted():
                self._alerts.labels(spec, event.alert.partition(" ")[0]).inc()
            case PartitionFailed():
                self._failed.labels(spec, event.stage, event.reason).inc()
                self._quarantined.labels(spec, event.stage).inc(event.quarantined)
            case StageFinished():
                self._quarantined.labels(spec, event.stage).set(event.n_quarantined)
                self._stage_seconds.labels(spec, event.stage).set(event.seconds)
            case InputJudged():
                self._findings.labels(spec, "held").set(event.n_held)
                self._findings.labels(spec, "approved").set(event.n_approved)
            case DecisionRecorded():
                self._flags.labels(spec, "selected").set(event.n_selected)
                self._flags.labels(spec, "to_release").set(event.n_to_release)
            case Proven():
                self._closes.labels(spec).set(event.closes)
            case Released():
                self._flags.labels(spec, "released").set(event.n_flags)
                self._flags.labels(spec, "overtaken").set(event.n_overtaken)
                self._flags.labels(spec, "evidence").set(event.n_evidence)
                self._flags.labels(spec, "suppressed").set(event.n_suppressed)
            case Waiting():
                self._wait(is_waiting=bool(event.reason))

    def ended(self, exit_code: int, watermark: datetime | None) -> None:
        """The command is over; ``watermark``: of the spec's sweeps, None where there are none."""
        self._wait(is_waiting=False)
        self._active.labels(self._spec).set(0)
        self._ended.labels(self._spec).set_to_current_time()
        self._exit_code.labels(self._spec).set(exit_code)
        if watermark is not None:
            self._watermark.labels(self._spec).set(watermark.timestamp())

    def _start(self, event: StageStarted) -> None:
        at = (self._spec, event.stage)
        self._partitions.labels(*at).set(event.n_partitions)
        self._done.labels(*at).set(event.n_done)
        self._rows.labels(*at).set(event.n_rows)
        self._rows_done.labels(*at).set(event.n_rows_done)
        self._committed.labels(*at)

    def _wait(self, *, is_waiting: bool) -> None:
        now = time.monotonic()
        if self._waiting_since is not None:
            self._waited.labels(self._spec).inc(now - self._waiting_since)
        self._waiting_since = now if is_waiting else None
        self._waiting.labels(self._spec).set(is_waiting)


def parse_address(text: str, *, off_host: bool) -> tuple[str, int]:
    """``127.0.0.1:9108`` or ``[::1]:9108`` as host and port.

    Raises:
        ValueError: it is neither.
        Refused: ``metrics_open`` when others than this host could read there, and nothing says that they may.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        msg = f"{text!r} is no address → write it as 127.0.0.1:9108"
        raise ValueError(msg)
    if not (off_host or is_loopback(host)):
        raise Refused(
            "metrics_open",
            "whoever reaches this host could read the metrics there",
            where=f"--metrics {text}",
            remedy=f"--metrics 127.0.0.1:{port}; or --metrics-off-host, behind a firewall or a network policy",
        )
    return host, int(port)


@contextmanager
def served(registry: CollectorRegistry, host: str, port: int) -> Iterator[None]:
    """``/metrics`` at that address while the block runs.

    Raises:
        Refused: ``telling_failed`` when nothing can listen there.
    """
    from prometheus_client import start_http_server

    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise Refused(
            "telling_failed",
            f"metrics cannot be served: {error.strerror}",
            where=f"--metrics {host}:{port}",
            remedy="name a free port; each run that lives at the same time needs one of its own",
        ) from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def refuse_textfile(path: Path) -> None:
    """Raise Refused ``telling_failed`` unless a textfile can be left there: before a run rather than after it."""
    remedy = "name a file NAME.prom in the folder that node_exporter reads (--collector.textfile.directory)"
    where = f"--metrics-textfile {path}"
    if path.suffix != ".prom":
        raise Refused("telling_failed", "node_exporter reads only files that end in .prom", where=where, remedy=remedy)
    if not os.access(path.absolute().parent, os.W_OK | os.X_OK):
        raise Refused("telling_failed", "its folder is not there, or may not be written", where=where, remedy=remedy)


def leave_textfile(registry: CollectorRegistry, path: Path) -> None:
    """Write the metrics to ``path``, whole or not at all.

    Raises:
        OSError: it could not be written.
    """
    from prometheus_client import write_to_textfile

    write_to_textfile(str(path), registry)
    path.chmod(READABLE)


def _require_prometheus() -> None:
    try:
        import prometheus_client  # noqa: F401 (whether it is there)
    except ImportError:
        raise Refused(
            "extra_missing", "metrics need prometheus-client", where="--metrics", remedy="pip install 'batchscore[metrics]'"
        ) from None
