"""What a report says of the run itself: facts, stages, surroundings, digests, and what may be typed next."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final

from batchscore.command import command, word
from batchscore.operations.following import following
from batchscore.plan import Stage
from batchscore.ports import RunRow, StageRow, StoreReader
from batchscore.receipt import HELD_BACK
from batchscore.report.model import Flags, RunFacts, StageReport
from batchscore.report.proof import Proof
from batchscore.report.work import StageWork

_ADDRESS: Final = re.compile(r"\s*\S+://[^\s,]+")
_LIBRARY: Final = "library "


def run_facts(row: RunRow, freeze: StageWork) -> RunFacts:
    """Who asked for what, how it stands, and when it was what."""
    spec = row.plan.spec
    lags = [lag for lag in (row.worst_lag_s, freeze.worst_lag_s) if lag is not None]
    return RunFacts(
        run_id=row.run_id,
        name=row.name,
        state=row.state,
        why=row.why,
        queue=spec.policy.queue,
        release=spec.release,
        as_ofs=spec.as_ofs(),
        opened_at=row.created_at,
        finished_at=row.finished_at,
        released_at=row.released_at,
        undo_begun_at=row.undo_begun_at,
        undone_at=row.undone_at,
        generation=row.generation,
        n_drivers=row.epoch,
        held_back_s=round(row.held_back_s + freeze.attempt_s.get(HELD_BACK, 0.0), 3),
        worst_lag_s=max(lags, default=None),
        deadline_at=row.deadline_at,
        expected_at=row.expected_at,
        late_since=row.late_since,
    )


def stages_of(
    row: RunRow, works: dict[Stage, StageWork], stages: dict[Stage, StageRow], rows: dict[str, int | None]
) -> Iterator[StageReport]:
    """All stages of the plan. Those of the driver took from the ledger's mark before them to the one after."""
    scored, explained = stages.get(Stage.SCORE), stages.get(Stage.REASONS)
    seconds = {
        "decide": _seconds(scored.updated_at, explained.started_at) if scored and explained else None,
        "release": _seconds(explained.updated_at, row.released_at) if explained else None,
    }
    for planned in row.plan.stages:
        if planned.stage in set(Stage):
            stage = Stage(planned.stage)
            yield works[stage].report(planned, stages.get(stage))
        else:
            yield StageReport(
                stage=planned.stage,
                does=planned.does,
                rows_planned=planned.n_rows,
                rows_done=rows.get(planned.stage),
                seconds=seconds.get(planned.stage),
            )


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return max(0.0, (end - start).total_seconds()) if start and end else None


def environment_of(row: RunRow, score: StageWork, reasons: StageWork) -> dict[str, str]:
    """What decides bits, and how the attempts ran; of the executor its kind and size, not its address."""
    libraries = {
        name.removeprefix(_LIBRARY): version for name, version in sorted(row.plan.pinned.items()) if name.startswith(_LIBRARY)
    }
    executor = _ADDRESS.sub("", row.executor) or "unknown"
    ran = {"executor": executor}
    for part, work in (("scorer", score), ("explainer", reasons)):
        if work.scorers:
            ran[part] = ", ".join(f"{name} ({n:,} partitions)" for name, n in sorted(work.scorers.items()))
    return ran | {"rows a partition": f"{row.plan.spec.partition_rows:,}", **libraries}


def digests_of(row: RunRow, proof: Proof | None) -> dict[str, str]:
    """By which all of it can be compared with another copy: plan, pinned parts, decision, memory, accounts."""
    pinned = {name: value for name, value in sorted(row.plan.pinned.items()) if not name.startswith(_LIBRARY)}
    found = {"plan": row.plan.digest} | {name: value for name, value in pinned.items() if name not in {"spec", "release"}}
    for name, file in (("decision", row.decision), ("memory", row.memory)):
        if file is not None:
            found[name] = file.sha256
    return found | ({"accounts, by key": proof.accounts} if proof else {})


def audit_head_of(reader: StoreReader) -> dict[str, str]:
    """The audit trail's newest entry: a report that is kept elsewhere shows later that its tail was cut."""
    number, digest = reader.audit_head()
    return {f"audit trail, entry {number:,}": digest} if number else {}


def next_commands(row: RunRow, reader: StoreReader, before: RunRow | None, flags: Flags | None, store: str) -> Iterable[str]:
    """Commands that go on from here, the likeliest first."""
    if next_command := following(row, reader, store):
        yield next_command
    if flags is not None and flags.n_released:
        yield f"batchscore queue --store {word(store)} --queue {row.plan.spec.policy.queue}"
    yield command("status", row.run_id, store)
    if before is not None:
        yield f"batchscore report diff {before.run_id} {row.run_id} --store {word(store)}"
