"""Proves a run from its ledger: folds receipts, and reads again the keys of partitions that were set aside."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from batchscore.layout import Definitions, keys_set_aside, scored_keys
from batchscore.plan import Plan, Reference, Score, Stage
from batchscore.ports import StoreReader
from batchscore.report.proof import KeysSetAside, Proof, prove


def prove_run(plan: Plan, definitions: Definitions, reader: StoreReader, run_id: str, shadow: Reference | None = None) -> Proof:
    """The proof of a run as the ledger stands; it closes only when every score partition is committed or quarantined.

    ``shadow``: of the scores of that shadow bundle, in place of those that flags come from.
    """
    stage = Stage.SCORE if shadow is None else Stage.SHADOW
    mine = {
        partition.number: partition.work
        for partition in reader.partitions(run_id, stage)
        if isinstance(partition.work, Score) and shadow in {None, partition.work.bundle}
    }
    aside = [mine[row.number] for row in reader.quarantined(run_id) if row.stage is stage and row.number in mine]
    return prove(
        plan.spec.as_ofs(),
        reader.receipts(run_id, Stage.FREEZE),
        reader.receipts(run_id, Stage.ROLLUP),
        (scored_keys(definitions, receipt) for receipt in reader.receipts(run_id, stage) if receipt.number in mine),
        _quarantined_keys(definitions, aside),
    )


def _quarantined_keys(definitions: Definitions, aside: Iterable[Score]) -> dict[datetime, KeysSetAside]:
    keys: dict[datetime, KeysSetAside] = {}
    for work in aside:
        for as_of in work.as_ofs:
            keys[as_of] = keys.get(as_of, KeysSetAside()).with_more(keys_set_aside(definitions, work, as_of))
    return keys
