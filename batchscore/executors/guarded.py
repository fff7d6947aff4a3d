"""One attempt as a value: a receipt, or a failure in words that carry nobody's data.

Exceptions do not travel: a traceback or a library's message may quote a row. A `BatchscoreError` speaks for itself; of
any other exception only its type and the place in our code are told.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from batchscore import log_fields
from batchscore.errors import BatchscoreError, PartitionError, Paused, Refused, type_and_place
from batchscore.plan import Task
from batchscore.receipt import Failed, Finished, Postponed, Receipt

Attempt = Callable[[Task], Receipt]
_log: Final = logging.getLogger(__name__)


def attempted(attempt: Attempt, task: Task) -> Finished | Failed | Postponed:
    """The outcome of one attempt; raises nothing but what ends the process."""
    partition = task.partition
    with log_fields.bound(run_id=task.run_id, stage=partition.stage.value, partition=partition.number):
        outcome = _outcome(attempt, task)
        _tell(outcome)
    return outcome


def _tell(outcome: Finished | Failed | Postponed) -> None:
    """Write it to the log: of a failure its reason alone; its words are the driver's, which knows what it means."""
    match outcome:
        case Finished():
            receipt = outcome.receipt
            said = {"attempt": receipt.attempt, "seconds": round(sum(receipt.seconds.values()), 3)}
            _log.info("attempt finished", extra={"batchscore": said})
        case Failed():
            _log.warning("attempt failed", extra={"batchscore": {"reason": outcome.reason}})
        case Postponed():
            _log.info("attempt postponed", extra={"batchscore": {"reason": outcome.reason}})


def _outcome(attempt: Attempt, task: Task) -> Finished | Failed | Postponed:
    try:
        return Finished(task=task, receipt=attempt(task))
    except Paused as error:
        return Postponed(task=task, reason=error.reason, message=error.what)
    except BatchscoreError as error:
        return Failed(
            task=task,
            reason=error.reason,
            message=str(error),
            final=isinstance(error, PartitionError),
            stops_run=isinstance(error, Refused),
        )
    except MemoryError:
        return Failed(task=task, reason="memory_limit", message="the attempt ran out of memory", final=True)
    except Exception as error:  # noqa: BLE001 (the boundary where every foreign exception becomes ours)
        return Failed(task=task, reason="attempt_failed", message=type_and_place(error), final=False)
