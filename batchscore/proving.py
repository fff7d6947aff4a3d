"""Proves a run from its ledger: folds receipts, and reads again the keys of partitions that were set aside."""

from __future__ import annotations

from datetime import datetime

from batchscore.layout import Definitions, scored_keys, set_aside
from batchscore.plan import Plan, Score, Stage
from batchscore.ports import StoreReader
from batchscore.report.proof import Proof, SetAside, prove


def prove_run(plan: Plan, definitions: Definitions, reader: StoreReader, run_id: str) -> Proof:
    """The proof of a run as the ledger stands; it closes only when every score partition is committed or quarantined."""
    return prove(
        plan.spec.as_ofs(),
        reader.receipts(run_id, Stage.FREEZE),
        reader.receipts(run_id, Stage.ROLLUP),
        (scored_keys(definitions, receipt) for receipt in reader.receipts(run_id, Stage.SCORE)),
        _quarantined_keys(definitions, reader, run_id),
    )


def _quarantined_keys(definitions: Definitions, reader: StoreReader, run_id: str) -> dict[datetime, SetAside]:
    aside = {row.number for row in reader.quarantined(run_id) if row.stage is Stage.SCORE}
    keys: dict[datetime, SetAside] = {}
    for partition in reader.partitions(run_id, Stage.SCORE) if aside else ():
        if partition.number in aside and isinstance(partition.work, Score):
            for as_of in partition.work.as_ofs:
                keys[as_of] = keys.get(as_of, SetAside()).with_more(set_aside(definitions, partition.work, as_of))
    return keys
