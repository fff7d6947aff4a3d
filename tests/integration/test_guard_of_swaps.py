"""The guard beside really packed models: a swap that drops one domain, or flags forty times the usual, is held."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from batchscore.errors import Held
from batchscore.events import NOTHING_TO_COMPARE
from batchscore.layout import decided_rows
from batchscore.store import open_reader
from tests.commands import call
from tests.small_world import Column, SmallWorld, make_small_world, pack

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
