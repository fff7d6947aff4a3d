"""Proves a run from its ledger: folds receipts, and reads again the keys of partitions that were set aside."""

from __future__ import annotations

from datetime import datetime

from batchscore.digest import KeyDigest
from batchscore.layout import Definitions, planned_keys, scored_keys
from batchscore.plan import Plan, Score, Stage
from batchscore.ports import StoreReader
from batchscore.report.proof import Proof, prove


def prove_run(plan: Plan, definitions: Definitions, reader: StoreReader, run_id: str) -> Proof:
    """The proof of a run as the ledger stands; it closes only when every score partition is committed or quarantined."""
    return prove(
        plan.spec.as_ofs(),
        reader.receipts(run_id, Stage.FREEZE),
        reader.receipts(run_id, Stage.ROLLUP),
        (scored_keys(definitions, receipt) for receipt in reader.receipts(run_id, Stage.SCORE)),
        _quarantined_keys(definitions, reader, run_id),
    )


def _quarantined_keys(definitions: Definitions, reader: StoreReader, run_id: str) -> dict[datetime, tuple[KeyDigest, KeyDigest]]:
    aside = {row.number for row in reader.quarantined(run_id) if row.stage is Stage.SCORE}
    keys: dict[datetime, tuple[KeyDigest, KeyDigest]] = {}
    for partition in reader.partitions(run_id, Stage.SCORE) if aside else ():
        if partition.number in aside and isinstance(partition.work, Score):
            for as_of in partition.work.as_ofs:
                planned, outside = planned_keys(definitions, partition.work, as_of)
                before = keys.get(as_of, (KeyDigest(), KeyDigest()))
                keys[as_of] = (before[0] + planned, before[1] + outside)
    return keys
