"""Lets flags stand in a store, as earlier runs would have left them: DATA ACCOUNTS MODEL STORE N_OPEN N_DECIDED.

They are of the accounts with the best scores of the store's run, which an earlier run would have flagged too: every second one
has moved since.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from batchscore.decide.best import best_of
from batchscore.decision import read_scores
from batchscore.desk import Opinion
from batchscore.flag import REASONS, Disposition, Reason, WrittenFlag
from batchscore.layout import scores_of
from batchscore.plan import Stage
from batchscore.store import open_desk, open_reader, open_store
from tests.benchmarks.one_decision import plan_of

_OPINIONS = 10_000  # at once


def main(data: Path, accounts: Path, model: Path, store: Path, *, n_open: int, n_decided: int) -> None:
    reader = open_reader(store)
    (scored,) = (row for row in reader.runs() if row.name == "wide")
    (as_of,) = scored.plan.spec.as_ofs()
    receipts = reader.receipts(scored.run_id, Stage.SCORE)
    files = scores_of(reader.partitions(scored.run_id, Stage.SCORE), receipts)[as_of]
    found = best_of(read_scores(store, files, as_of), n_open + n_decided, 0.0, pa.uint64()).table.sort_by("account_id")
    ledger = open_store(store, "integer")
    handle, _ = ledger.open(plan_of(data, accounts, model, store, name="earlier", as_of="2025-12-01"), owner="benchmark")
    earlier = ledger.reader().run(handle.run_id).plan.spec.as_ofs()[0]
    codes = [
        [Reason(code=f"f{(at + more) % 40:02d}", sentence=f"f{at:02d} is 1.25", contribution=0.5 - more / 9) for more in range(5)]
        for at in range(40)
    ]
    texts = [REASONS.dump_json(tuple(reasons)).decode() for reasons in codes]

    def flags() -> Iterator[WrittenFlag]:
        for place, (account, score, margin) in enumerate(zip(*found.to_pydict().values(), strict=True)):
            yield WrittenFlag(
                queue="bench",
                account_id=account,
                run_id=handle.run_id,
                as_of=earlier,
                rank=place + 1,
                score=float(score),
                margin=float(margin) - place % 2,
                reasons_json=texts[place % len(texts)],
                bundle_digest="0" * 64,
                group="",
                since="",
                second_reviewer=False,
            )

    ledger.release(handle, flags())
    ledger.close(handle, "finished")
    chosen = np.random.default_rng(0).choice(len(found), n_decided, replace=False)
    words = list(Disposition)
    opinions = iter(
        Opinion(queue="bench", account_id=account, disposition=words[account % 3], by="ann", evidence=1)
        for account in found["account_id"].take(pa.array(np.sort(chosen))).to_pylist()
    )
    desk = open_desk(store)
    while part := list(islice(opinions, _OPINIONS)):
        desk.decide(part)


if __name__ == "__main__":
    folders, numbers = sys.argv[1:5], sys.argv[5:]
    main(*map(Path, folders), n_open=int(numbers[0]), n_decided=int(numbers[1]))
