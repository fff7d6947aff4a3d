"""What "equal" means: one digest over every score and flag of a run, whatever the names of its files and the time it took."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.plan import Stage
from batchscore.store import open_reader


def run_digest(store: Path, run_id: str) -> str:
    """SHA-256 over the sorted scores, rejects and flags of a run; float bits as they are."""
    reader = open_reader(store)
    digest = hashlib.sha256()
    for role in ("scores", "rejects"):
        tables = [
            pq.read_table(store / output.path)
            for receipt in reader.receipts(run_id, Stage.SCORE)
            for output in receipt.outputs
            if output.role == role
        ]
        if tables:
            table = pa.concat_tables(tables).sort_by([("as_of", "ascending"), ("account_id", "ascending")]).combine_chunks()
            for name in table.column_names:
                digest.update(f"{role} {name} {len(table)}".encode())
                digest.update(
                    repr(table[name].to_pylist()).encode() if name in {"code", "account_id"} else table[name].to_numpy().tobytes()
                )
    for row in reader.queue(None, limit=1_000_000):
        flag = row.flag.model_copy(update={"run_id": ""})
        digest.update(flag.model_dump_json().encode())
    return digest.hexdigest()
