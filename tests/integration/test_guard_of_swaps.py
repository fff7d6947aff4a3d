"""The guard beside really packed models: a swap that drops one domain, or flags forty times the usual, is held."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore.errors import Held
from batchscore.events import NOTHING_TO_COMPARE
from batchscore.layout import decided_rows
from batchscore.plan import Stage
from batchscore.store import open_reader
from tests.commands import call
from tests.small_world import NAMES, Column, SmallWorld, make_small_world, pack

CUTOFF = 8.0
FEW = 28.0


def many(columns: dict[str, Column]) -> npt.NDArray[np.bool_]:
    return columns["recipients"] > CUTOFF


@pytest.fixture
def world(tmp_path: Path) -> SmallWorld:
    return make_small_world(tmp_path, n_accounts=600)


def sweep(world: SmallWorld, bundle: str, as_of: str) -> int:
    guarded = "{queue: abuse, threshold: 0.5, domain: plan, guard: {factor: 3, least: 3}}"
    world.spec(bundles=f"[{bundle}]", segment="plan", groups="[plan]", policy=guarded)
    return call("sweep", world.spec_path, "--as-of", as_of, "--inline").code


def warnings(world: SmallWorld, page: Path) -> list[str]:
    run_id = open_reader(world.store).runs()[0].run_id
    call("report", run_id, "--store", world.store, "--html", page)
    told: list[str] = json.loads(call("report", run_id, "--store", world.store, "--json").stdout)["warnings"]
    assert (NOTHING_TO_COMPARE in page.read_text()) == (NOTHING_TO_COMPARE in told)
    return told


def test_a_packed_model_that_drops_a_domain_is_held(world: SmallWorld, tmp_path: Path) -> None:
    pack(tmp_path, np.random.default_rng(4), name="usual", place="usual", bad=many)
    dropping = tmp_path / "dropping"
    pack(tmp_path, np.random.default_rng(4), name="drops", place=dropping.name, bad=lambda c: many(c) & (c["plan"] != 1))
    assert sweep(world, "usual", "2026-01-14") == 0
    assert NOTHING_TO_COMPARE in warnings(world, tmp_path / "first.html")
    with pytest.raises(Held, match="release_held") as held:
        sweep(world, "dropping", "2026-01-15")
    assert "flags of domain 1: fewer than usual: 0" in str(held.value)
    assert NOTHING_TO_COMPARE not in warnings(world, tmp_path / "second.html")
    second, first = (row.run_id for row in open_reader(world.store).runs()[:2])
    call("approve", second, "--by", "Ada", "--store", world.store)
    assert call("resume", second, "--inline", "--store", world.store).code == 0
    told = json.loads(call("report", first, "--store", world.store, "--json").stdout)["warnings"]
    assert NOTHING_TO_COMPARE in told, "a later run is none that it was compared with"


def test_a_packed_model_that_flags_forty_times_the_usual_is_held(world: SmallWorld, tmp_path: Path) -> None:
    pack(tmp_path, np.random.default_rng(4), name="few", place="few", bad=lambda c: c["recipients"] > FEW)
    pack(tmp_path, np.random.default_rng(4), name="flood", place="flood", bad=lambda c: c["age"] > 0.5)
    assert sweep(world, "few", "2026-01-14") == 0
    n_usual = len(open_reader(world.store).queue("abuse", limit=1_000))
    with pytest.raises(Held, match="release_held") as held:
        sweep(world, "flood", "2026-01-15")
    assert "scores above the threshold: more than usual" in str(held.value)
    decision = open_reader(world.store).runs()[0].decision
    assert decision is not None
    n_flood = len(decided_rows(decision)) + len(decided_rows(decision, "evidence", "withheld"))
    assert 0 < 40 * n_usual <= n_flood, (n_usual, n_flood)


LENIENT = "factor: 1000, least: 100000"  # of counts of flags, which are not what is looked at


def held_for(world: SmallWorld, bundle: str, as_of: str, guard: str) -> list[tuple[str, str]]:
    """What a sweep by the bundle is held for, and in which words; nothing when it releases."""
    policy = f"{{queue: abuse, threshold: 0.5, guard: {{{LENIENT}, {guard}}}}}"
    world.spec(bundles=f"[{bundle}]", policy=policy, partition_rows="200")  # of fewer than 100 rows a share says little
    with suppress(Held):
        call("sweep", world.spec_path, "--as-of", as_of, "--inline")
    reader = open_reader(world.store)
    return [(finding.of, finding.what) for hold in reader.holds(reader.runs()[0].run_id) for finding in hold.findings]


def n_above(world: SmallWorld) -> int:
    """Accounts of the newest run at 0.5 or above."""
    reader = open_reader(world.store)
    receipts = reader.receipts(reader.runs()[0].run_id, Stage.SCORE)
    paths = [world.store / output.path for receipt in receipts for output in receipt.outputs if output.role == "scores"]
    return sum(int((pq.read_table(path)["score"].to_numpy() >= 0.5).sum()) for path in paths)


def test_scores_unlike_those_of_the_run_before_are_held_in_reviews_a_day(world: SmallWorld, tmp_path: Path) -> None:
    pack(tmp_path, np.random.default_rng(4), name="few", place="few", bad=lambda c: c["recipients"] > FEW)
    pack(tmp_path, np.random.default_rng(4), name="flood", place="flood", bad=lambda c: c["age"] > 0.5)
    assert held_for(world, "few", "2026-01-12", "psi: 0.25") == []
    assert held_for(world, "few", "2026-01-13", "psi: 0.25") == [], "the same model a day later"
    n_before, before = n_above(world), open_reader(world.store).runs()[0].run_id
    ((of, what),) = held_for(world, "flood", "2026-01-15", "psi: 0.25")
    assert of.startswith(f"scores against {before}, ")
    words = re.fullmatch(r"scores drifted, ([\d,]+) more reviews a day", what)
    assert words is not None
    assert int(words[1].replace(",", "")) == pytest.approx((n_above(world) - n_before) / 2, abs=2), "two days lie between them"


def test_scores_and_gaps_unlike_what_the_bundle_was_packed_with_are_held(world: SmallWorld, tmp_path: Path) -> None:
    like_nobody = pa.table({name: np.full(200, 90.0, np.float32) for name in NAMES})
    pack(tmp_path, np.random.default_rng(4), name="told", place="told", bad=many, reference=like_nobody)
    path = min((tmp_path / "accounts").glob("*.parquet"))
    accounts = pq.read_table(path)
    place = accounts.column_names.index("plan")
    pq.write_table(accounts.set_column(place, "plan", pa.nulls(len(accounts), pa.int64())), path)
    found = held_for(world, "told", "2026-01-14", "psi: 0.25, missing: 0.1")
    assert {of.partition(",")[0] for of, _ in found if "scores" in of} == {"scores against the bundle's reference"}
    gaps = {of.rpartition(" in ")[2]: what for of, what in found if "partitions" in of}
    assert gaps["which plan is missing"] == "missing more often than when the bundle was packed"
    assert "which mails_7d is missing" not in gaps, "a count is never missing"
