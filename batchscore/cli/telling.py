"""Who hears of a run beside the terminal: a log for machines, metrics. Options of every command that runs something."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from batchscore.errors import BUG, INTERRUPTED, QUARANTINED, BatchscoreError
from batchscore.observe.text import plain

if TYPE_CHECKING:
    from batchscore.events import Event
    from batchscore.observe.logs import LogObserver
    from batchscore.observe.metrics import MetricsObserver
    from batchscore.ports import Observer


@dataclass(frozen=True, kw_only=True)
class Telling:
    """What the options ask for. ``log``: a file, or ``-`` for stderr in the place of the progress."""

    log: str | None = None
    metrics: str | None = None
    metrics_off_host: bool = False
    metrics_textfile: Path | None = None

    @contextmanager
    def opened(self, spec: str) -> Iterator[Observers]:
        """The observers of runs of ``spec``; closed, and the textfile left, with the block however it ends.

        Raises:
            Refused: ``extra_missing``, ``metrics_open``, ``telling_failed``.
        """
        with ExitStack() as stack:
            told = Observers(textfile=self.metrics_textfile)
            if self.log is not None:
                from batchscore.observe.logs import LogObserver, start_log

                start_log(self.log)
                told.log = LogObserver(spec)
            if self.metrics is not None or self.metrics_textfile is not None:
                told.metrics = self._metrics(spec, stack)
            if self.log != "-":
                from batchscore.observe.progress import ProgressObserver

                told.progress = stack.enter_context(ProgressObserver(Console(stderr=True)))
            try:
                yield told
            except BaseException as error:
                told.end(_exit_code(error), error)
                raise
            told.end(QUARANTINED if told.n_quarantined else 0, None)

    def _metrics(self, spec: str, stack: ExitStack) -> MetricsObserver:
        from batchscore.observe.metrics import MetricsObserver, parse_address, refuse_textfile, served

        observer = MetricsObserver(spec)
        if self.metrics_textfile is not None:
            refuse_textfile(self.metrics_textfile)
        if self.metrics is not None:
            try:
                host, port = parse_address(self.metrics, off_host=self.metrics_off_host)
            except ValueError as error:
                raise click.UsageError(str(error)) from None
            stack.enter_context(served(observer.registry, host, port))
        return observer


@dataclass(kw_only=True)
class Observers:
    """Hears events and passes them on. ``n_quarantined`` and ``watermark`` are said by who knows them, before the end."""

    textfile: Path | None
    progress: Observer | None = None
    log: LogObserver | None = None
    metrics: MetricsObserver | None = None
    n_quarantined: int = 0
    watermark: Callable[[], datetime | None] = lambda: None

    def __call__(self, event: Event) -> None:
        """One event, to each of them."""
        for observer in (self.progress, self.log, self.metrics):
            if observer is not None:
                observer(event)

    def end(self, exit_code: int, error: BaseException | None) -> None:
        """The command is over. That a textfile cannot be written is told, and changes nothing of a run that is done."""
        if self.log is not None:
            self.log.ended(exit_code, error)
        if self.metrics is None:
            return
        self.metrics.ended(exit_code, self._watermark())
        if self.textfile is not None:
            from batchscore.observe.metrics import leave_textfile

            try:
                leave_textfile(self.metrics.registry, self.textfile)
            except OSError as failed:
                click.echo(plain(f"warning: {self.textfile} was not written: {failed.strerror}"), err=True)

    def _watermark(self) -> datetime | None:
        try:
            return self.watermark()
        except BatchscoreError:  # the database is away: what the run ended with was told already
            return None


def _exit_code(error: BaseException) -> int:
    """As `cli.main` ends with."""
    if isinstance(error, BatchscoreError):
        return error.exit_code
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else BUG


def telling_options(command: Callable[..., int]) -> Callable[..., int]:
    """The command is given ``telling``."""

    @wraps(command)
    def with_telling(
        *args: Any, log: str | None, metrics: str | None, metrics_off_host: bool, metrics_textfile: Path | None, **others: Any
    ) -> int:
        telling = Telling(log=log, metrics=metrics, metrics_off_host=metrics_off_host, metrics_textfile=metrics_textfile)
        return command(*args, telling=telling, **others)

    options = (
        click.option("--log", metavar="FILE", help="Append a log of ECS JSON lines, Dask's too; - is stderr, without progress."),
        click.option("--metrics", metavar="HOST:PORT", help="Serve Prometheus metrics while the run lives, on loopback."),
        click.option("--metrics-off-host", is_flag=True, help="Accept a --metrics address that other hosts reach."),
        click.option(
            "--metrics-textfile",
            type=click.Path(path_type=Path),
            help="Leave the metrics there at the end, for node_exporter: NAME.prom.",
        ),
    )
    decorated: Callable[..., int] = with_telling
    for option in options:
        decorated = option(decorated)
    return decorated
