"""The command that comes next for a run as it stands: one answer for `status`, `watch` and the report."""

from __future__ import annotations

from pathlib import Path

from batchscore.command import command
from batchscore.plan import Stage
from batchscore.ports import RunRow, StoreReader

_ANEW = "mend the input as its reason says, then: batchscore run SPEC (a mended input is a new plan; what is whole is reused)"


def following(row: RunRow, reader: StoreReader, store: Path | str) -> str | None:
    """What a person does next, as a command or in words; None: the run is over, and nothing has to be done."""
    if row.state == "finished":
        begun = row.undo_begun_at is not None and row.undone_at is None
        return command("undo", row.run_id, store, "--apply --why TEXT") if begun else None
    if row.request is not None and row.request.wish == "paused":
        return command("continue", row.run_id, store)
    if row.state == "running" and not row.driver_gone:
        return command("watch", row.run_id, store)
    newest = reader.runs_of_plan(row.plan_digest)[0].run_id
    if newest != row.run_id:
        return command("status", newest, store)
    return _ANEW if row.failed_on_input else _taken_up(row, reader, store)


def _taken_up(row: RunRow, reader: StoreReader, store: Path | str) -> str:
    """How a run that nobody drives goes on."""
    holds = reader.holds(row.run_id)
    if row.state == "held" and holds and holds[-1].approved_at is None:
        return command("approve", row.run_id, store, "--by NAME")
    aside = reader.quarantined(row.run_id)
    if row.state == "failed" and any(partition.stage not in {Stage.SCORE, Stage.SHADOW} for partition in aside):
        return command("retry", row.run_id, store, "--quarantined")
    return command("resume", row.run_id, store)
