"""Values that come back from workers: receipts and outcomes. Small, picklable, no rows in them."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from batchscore.plan import Stage, Task
from batchscore.values import Value

HELD_BACK: Final = "held back"  # the part of an attempt's seconds in which it waited for its source


class Output(Value):
    """One file an attempt wrote; ``path`` is relative to the store's folder."""

    # ``keys`` is written no longer: of scores of an earlier release, whose runs are still verified and explained.
    role: Literal["snapshot", "groups", "events", "rollup", "scores", "rejects", "reasons", "keys", "days", "closer_look"]
    path: str
    sha256: str
    n_rows: int
    n_bytes: int


class Receipt(Value):
    """What one attempt did. Two attempts at one partition must agree in `content`; times and names may differ.

    ``counts`` are totals by name (``rows``, ``rejected null_id`` …). ``keys`` are key digests as text (`KeyDigest.parse`): of
    ``accounts`` for a freeze. A score has several for each of many as-ofs, too many for a receipt: its file's footer has them.
    ``scorer`` (who computed the scores or reasons), ``alerts`` (`errors.ALERTS`) and ``worst_lag_s`` (of a live source's
    replicas) tell how the work went, not what came of it. ``beside``: the receipts of ``Task.beside``; the ledger keeps each of
    them by itself.
    """

    stage: Stage
    number: int
    address: str
    attempt: str  # uuid, drawn inside the task
    outputs: tuple[Output, ...]
    counts: dict[str, int] = Field(default_factory=dict)
    keys: dict[str, str] = Field(default_factory=dict)
    seconds: dict[str, float] = Field(default_factory=dict)
    scorer: str = ""
    alerts: tuple[str, ...] = ()
    worst_lag_s: float | None = None
    live: bool = False  # it read a live table, which another attempt may have found changed: the first one counts
    beside: tuple[Receipt, ...] = ()

    def apart(self) -> tuple[Receipt, ...]:
        """This receipt and those beside it, each alone."""
        return (self.model_copy(update={"beside": ()}), *self.beside)

    def content(self) -> tuple[object, ...]:
        """What must be equal between attempts: everything but names, times and how it was done."""
        files = tuple((output.role, output.sha256, output.n_rows) for output in self.outputs)
        return (self.address, files, tuple(sorted(self.counts.items())), tuple(sorted(self.keys.items())))


class Finished(Value):
    """An attempt came back with its receipt."""

    task: Task
    receipt: Receipt


class Failed(Value):
    """An attempt raised. ``final``: doing it again cannot help. ``reason``, ``message`` are a `BatchscoreError`'s."""

    task: Task
    reason: str
    message: str
    final: bool
    stops_run: bool = False  # a refusal found by an attempt: the whole run ends, nothing is released


class Suspected(Value):
    """A worker was lost, or given up, while it worked at this task: an accusation, not a failure.

    ``running``: the scheduler has already started it again elsewhere, and its outcome is still to come. ``reason``:
    ``worker_lost`` or ``stalled``.
    """

    task: Task
    running: bool
    reason: str = "worker_lost"


class Postponed(Value):
    """An attempt gave way to those whose source it reads, or was never begun: no failure. ``reason`` as in the catalogue."""

    task: Task
    reason: str
    message: str


class Stalled(Value):
    """Nothing came for ``seconds``: what was found, what was ``done`` about it, and the cluster's own story, as lines of text.

    It is told beside the outcomes of ``tasks``, which follow it.
    """

    tasks: tuple[Task, ...]
    seconds: float
    found: str
    done: str
    evidence: tuple[str, ...]


Outcome = Finished | Failed | Suspected | Postponed | Stalled
