"""One whole run that decides and releases, in a process of its own: DATA ACCOUNTS MODEL STORE [NAME]. Prints its figures as JSON.

A second run of another NAME in the same store takes up the snapshots and scores of the first, and decides by itself.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from batchscore.events import DecisionRecorded, Event, Proven, Released, StageFinished, StageStarted
from batchscore.plan import Plan, Stage
from tests.benchmarks import wide

POLICY = """\
policy:
  queue: bench
  threshold: 0.0
  budget: 10000
  reserve: 5000
  sample: 0.05
  tiers: [{by: country, budget: 400}]
  campaign: {by: network, cap: 5}
segment: country
groups: [network]
release: latest
"""


def peak_bytes() -> int:
    """The largest that this process was so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def plan_of(data: Path, accounts: Path, model: Path, store: Path, *, name: str = "wide", as_of: str = "2026-01-01") -> Plan:
    """The plan of a run of that name."""
    from batchscore.planner import make_plan
    from batchscore.spec import read_spec

    wide.write_spec(data, accounts, model, store, partition_rows=100_000)
    path = data / "spec-decide.yaml"
    lines = (data / "spec.yaml").read_text().splitlines(keepends=True)
    own = {"name": name, "as_of": as_of}
    kept = "".join(line for line in lines if line.split(":")[0] not in {"policy", *own})
    path.write_text("".join(f"{key}: {value}\n" for key, value in own.items()) + kept + POLICY)
    return make_plan(read_spec(path))


def main(data: Path, accounts: Path, model: Path, store: Path, *, name: str) -> None:
    from batchscore.attempt import attempt
    from batchscore.executors.connect import local_cluster
    from batchscore.pipeline import run
    from batchscore.readiness import get_ready
    from batchscore.store import open_store

    at: dict[str, float] = {}
    told: dict[str, float] = {}

    def observe(event: Event) -> None:
        now = time.perf_counter()
        if isinstance(event, StageStarted):
            at[event.stage] = now
        elif isinstance(event, StageFinished):
            told[event.stage] = event.seconds
            if event.stage is Stage.SCORE:
                told["before_bytes"] = peak_bytes()
                at["decide"] = now
        elif isinstance(event, DecisionRecorded):
            told["decide"] = now - at["decide"]
        elif isinstance(event, Proven):
            at["release"] = now
        elif isinstance(event, Released):
            told["release"], told["n_flags"], told["n_evidence"] = now - at["release"], event.n_flags, event.n_evidence

    with local_cluster(attempt, prepare=get_ready) as executor:
        plan = plan_of(data, accounts, model, store, name=name)
        row = run(plan, executor=executor, store=open_store(store, "integer"), observer=observe)
        assert row.state == "finished"
    told["n_scores"] = sum(file.n_rows for file in plan.inputs["accounts"])
    print(json.dumps(told | {"peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:5]), name="".join(sys.argv[5:]) or "wide")
