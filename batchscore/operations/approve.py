"""A person lets a held run go on: approves what it is held for, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from batchscore.audit import mistake_of_name
from batchscore.command import command
from batchscore.errors import Refused
from batchscore.features.feature_set import FeatureSet
from batchscore.hold import HoldRow
from batchscore.store import open_reader, open_store

MAX_REASON: Final = 2_000


def approve_hold(folder: Path, run_id: str, *, by: str, because: str) -> HoldRow:
    """Approve what the run of that store is held for, in the name of ``by``; ``because`` may be empty. Runs nothing.

    Raises:
        ValueError: ``by`` or ``because`` is nothing that could stand there.
        Refused: ``not_held``, ``run_unknown``, ``run_id_invalid`` or ``store_missing``.
    """
    if mistake := mistake_of(by, because):
        raise ValueError(mistake)
    reader = open_reader(folder)
    row = reader.run(run_id)
    found = reader.holds(run_id)
    if row.state != "held" or not found:
        raise Refused(
            "not_held",
            f"nothing was approved: the run is {row.state}",
            where=f"run {run_id}",
            remedy=f"look how it stands: {command('status', run_id, folder)}",
        )
    store = open_store(folder, FeatureSet.thaw(row.plan.feature_set).account_id)
    return store.approve(found[-1], by=by, because=because)


def mistake_of(by: str, because: str) -> str:
    """What is wrong with a name and a reason, in words; empty for nothing."""
    if mistake := mistake_of_name(by, of="who approves"):
        return mistake
    return f"the reason is longer than {MAX_REASON:,} characters" if len(because) > MAX_REASON else ""
