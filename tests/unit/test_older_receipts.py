"""What an earlier release left in a store is still read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore.errors import BatchscoreError
from batchscore.layout import scored_keys
from batchscore.receipt import Receipt


def kept(store: Path, role: str, table: pa.Table) -> dict[str, Any]:
    path = store / f"{role}.parquet"
    pq.write_table(table, path)
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    return {"role": role, "path": path.name, "sha256": sha256, "n_rows": len(table), "n_bytes": len(content)}


def test_keys_of_scores_that_stand_in_a_file_of_their_own(tmp_path: Path) -> None:
    names, digests = ["scored 2002-08-19T00:00:00+00:00", "rejected 2002-08-19T00:00:00+00:00"], ["a:1", "b:2"]
    outputs = [
        kept(tmp_path, "scores", pa.table({"score": [0.5]})),
        kept(tmp_path, "keys", pa.table({"name": names, "keys": digests})),
    ]
    receipt = Receipt.model_validate({"stage": "score", "number": 0, "address": "a", "attempt": "t", "outputs": outputs})
    definitions: Any = SimpleNamespace(store=tmp_path)

    assert scored_keys(definitions, receipt).keys == dict(zip(names, digests, strict=True))

    (tmp_path / "keys.parquet").write_bytes(b"changed since")
    with pytest.raises(BatchscoreError):
        scored_keys(definitions, receipt)
