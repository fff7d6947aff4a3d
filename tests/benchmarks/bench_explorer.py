"""Benchmarks of looking at a large run from a notebook: 5M accounts scored, 10,000 flagged, through a Dask client."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks import wide
from tests.benchmarks.figure import Figure

if TYPE_CHECKING:
    from batchscore.explore.explorer import Explorer
    from batchscore.policy import Policy

N_ACCOUNTS = 5_000_000
N_FLAGS = 10_000
FILES = 40
ROUNDS = 3


def explorer(data: Path) -> Iterator[Figure]:
    """`flags().head()` of a run just opened, in seconds; `what_if` (median of 3) over the scoring's time, same cores.

    The model is that of `score parquet`: 500 trees of depth 6. Files are hashed as they are first read.
    """
    from distributed import Client, LocalCluster

    from batchscore.api import run
    from batchscore.explore.explorer import Explorer
    from batchscore.plan import Stage
    from batchscore.policy import Policy
    from batchscore.store import open_reader

    accounts, model = wide.write_accounts(data, N_ACCOUNTS, n_files=FILES), wide.write_model(data)
    with (
        tempfile.TemporaryDirectory(dir=data) as store,
        LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        spec = wide.write_spec(data, accounts, model, Path(store))
        row = run(spec.model_copy(update={"policy": Policy(queue="bench", budget=N_FLAGS)}), client=client)
        (scored,) = (stage for stage in open_reader(Path(store)).stages(row.run_id) if stage.stage is Stage.SCORE)
        assert scored.started_at is not None
        assert scored.updated_at is not None
        scoring_s = (scored.updated_at - scored.started_at).total_seconds()
        start = time.perf_counter()
        opened = Explorer(client, row)
        head = opened.flags().head()
        head_s = time.perf_counter() - start
        assert len(head) == 5
        asked_s = [_what_if(opened, Policy(queue="bench", threshold=0.5, budget=2 * N_FLAGS)) for _ in range(ROUNDS)]
        what_if_s = statistics.median(asked_s)
    of = f"{N_ACCOUNTS:,} accounts, {N_FLAGS:,} flags"
    yield Figure(
        name="explorer flags().head(), seconds",
        ratio=head_s,
        floor=2.0,
        higher_is_better=False,
        detail=f"seconds, not a ratio; opened and read for the first time; {of}",
    )
    yield Figure(
        name="explorer what_if over scoring",
        ratio=what_if_s / scoring_s,
        floor=0.1,
        higher_is_better=False,
        detail=f"{what_if_s:.2f} s (the first, which hashes, {asked_s[0]:.2f} s), scoring took {scoring_s:.1f} s; {of}",
    )


def _what_if(opened: Explorer, policy: Policy) -> float:
    """Seconds."""
    start = time.perf_counter()
    found = opened.what_if(policy)
    assert len(found.flags) > 0
    return time.perf_counter() - start
