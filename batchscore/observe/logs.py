"""A run's log for machines: one ECS JSON document a line, from the driver, its workers and Dask itself.

`configuration` is what `logging.config.dictConfig` takes; Dask reads the same from its own configuration (``logging:``), so
a worker and a scheduler log as the driver does. Lines are constant text plus fields (``batchscore.run_id``, ``.stage``,
``.partition``, ``.attempt``, …). What an exception says is left out, since it may quote a row: its type stays. SQLAlchemy is
kept at warnings: from INFO on it logs the values of every statement. ecs-logging is an extra (``logs``), imported when asked for.
"""

from __future__ import annotations

import logging
import logging.config
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from re import sub
from typing import Any, Final

from batchscore import log_fields
from batchscore.errors import BatchscoreError, Refused
from batchscore.events import (
    DeadlineJudged,
    Event,
    InputJudged,
    PartitionAlerted,
    PartitionFailed,
    ReleaseJudged,
    StallFound,
    Stopping,
    Waiting,
)

STDERR: Final = "-"
DASK_VARIABLE: Final = "DASK_LOGGING"  # where Dask, here and in the workers that are spawned, finds the same configuration
_NOT_SAID: Final = ("error.message", "error.stack_trace", "log.original")  # may quote a row
_WARNINGS: Final = (DeadlineJudged, PartitionAlerted, PartitionFailed, StallFound, Stopping, Waiting)
_log: Final = logging.getLogger("batchscore.run")


def configuration(place: str) -> dict[str, Any]:
    """`logging.config.dictConfig`'s argument for a log at ``place``: a file that is appended to, or ``-`` for stderr."""
    handler = (
        {"class": "logging.StreamHandler", "stream": "ext://sys.stderr"}
        if place == STDERR
        else {"class": "logging.handlers.WatchedFileHandler", "filename": place}
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"ecs": {"()": "batchscore.observe.logs.ecs_formatter"}},
        "filters": {"fields": {"()": "batchscore.observe.logs.WorkFields"}},
        "handlers": {"ecs": {**handler, "formatter": "ecs", "filters": ["fields"]}},
        "root": {"level": "WARNING", "handlers": ["ecs"]},
        "loggers": {"batchscore": {"level": "INFO"}, "distributed": {"level": "INFO"}},
    }


def start_log(place: str) -> None:
    """Log to ``place`` from now on, in this process and in the workers that it will spawn. Before Dask is imported.

    Raises:
        Refused: ``extra_missing``, or ``telling_failed`` when the file cannot be written.
    """
    _require_ecs()
    place = place if place == STDERR else str(Path(place).absolute())  # workers stand in another folder
    chosen = configuration(place)
    try:
        logging.config.dictConfig(chosen)
    except (OSError, ValueError) as error:
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        why = cause.strerror if isinstance(cause, OSError) else "it cannot be opened"
        raise Refused("telling_failed", f"the log cannot be written: {why}", where=f"--log {place}") from None
    os.environ[DASK_VARIABLE] = repr(chosen)


def ecs_formatter() -> logging.Formatter:
    """A formatter of ECS JSON that leaves out what an exception says."""
    _require_ecs()
    from ecs_logging import StdlibFormatter

    extra = {"service": {"name": "batchscore"}}
    return StdlibFormatter(stack_trace_limit=0, exclude_fields=_NOT_SAID, extra=extra)


class WorkFields(logging.Filter):
    """Gives each line the fields of the work it was written in."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add them; every line passes."""
        said: Mapping[str, Any] = getattr(record, "batchscore", {})
        if fields := {**log_fields.current(), **said}:
            record.batchscore = fields
        return True


class LogObserver:
    """Writes a run's events as log lines: ``partition committed`` with its figures as fields."""

    def __init__(self, spec: str) -> None:
        self._spec = spec

    def __call__(self, event: Event) -> None:
        """Write one event."""
        level = logging.WARNING if isinstance(event, _WARNINGS) or _is_of_note(event) else logging.INFO
        fields = {_FIELD_NAMES.get(name, name): value for name, value in asdict(event).items()}
        _log.log(level, _sentence(type(event)), extra={"batchscore": {"spec": self._spec, **fields}})

    def ended(self, exit_code: int, error: BaseException | None) -> None:
        """Write how the command ended; of an error its code, never its words."""
        fields: dict[str, object] = {"spec": self._spec, "exit_code": exit_code}
        if isinstance(error, BatchscoreError):
            fields |= {"code": error.code, "reason": error.reason}
        _log.log(logging.ERROR if error else logging.INFO, "command ended", extra={"batchscore": fields})


_FIELD_NAMES: Final = {"number": "partition"}


def _is_of_note(event: Event) -> bool:
    """Whether a guard holds the run, or had nothing to compare its flags with."""
    held = isinstance(event, InputJudged | ReleaseJudged) and event.n_held > 0
    return held or (isinstance(event, ReleaseJudged) and bool(event.warning))


def _sentence(kind: type[Event]) -> str:
    """``PartitionCommitted`` → ``partition committed``."""
    return sub(r"(?<!^)(?=[A-Z])", " ", kind.__name__).lower()


def _require_ecs() -> None:
    try:
        import ecs_logging  # noqa: F401 (whether it is there)
    except ImportError:
        raise Refused(
            "extra_missing",
            "a log in ECS JSON needs ecs-logging",
            where="--log",
            remedy="pip install 'batchscore[logs]'",
        ) from None
