"""A run goes on with another library only where somebody accepts it by name; everything else that differs is another run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import batchscore
from batchscore.audit import Act
from batchscore.dispatch.limits import Limits
from batchscore.errors import Interrupted, Refused
from batchscore.executors.inline import InlineExecutor
from batchscore.layout import definitions
from batchscore.operations.report import report_of, write_page
from batchscore.operations.verify import verify_run
from batchscore.pipeline import run
from batchscore.plan import Stage
from batchscore.planner import make_plan, pinned, plan_again
from batchscore.settings import library_versions
from batchscore.store import open_reader, open_store
from tests.commands import call
from tests.conftest import MakeMySqlStore
from tests.fake_attempts import AtTheNth, Noted
from tests.small_world import SmallWorld, make_small_world, pack
from tests.whole_runs import walk

NUMPY = dict(library_versions())["numpy"]


@pytest.fixture
def older_numpy(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Plans and addresses are those of an older numpy, until `_as_it_is`."""
    older = tuple((name, "1.0.0" if name == "numpy" else version) for name, version in library_versions())
    for module in (pinned, definitions):
        monkeypatch.setattr(module, "library_versions", lambda: older)
    return monkeypatch


def stopped_at_score(world: SmallWorld, **changes: str) -> str:
    """A run of which two score partitions are committed."""
    limits = Limits()
    stopping = AtTheNth(2, limits.stop.set, Stage.SCORE)
    plan = make_plan(world.spec(**changes))
    store = open_store(Path(plan.spec.store), world.kind)
    with pytest.raises(Interrupted):
        run(plan, executor=InlineExecutor(stopping), store=store, observer=lambda _event: None, limits=limits)
    return store.reader().runs()[0].run_id


@pytest.mark.parametrize("database", ["sqlite", pytest.param("mysql", marks=pytest.mark.mysql)])
def test_another_library_is_refused_by_name_until_it_is_accepted_and_then_stands_for_ever(
    database: str, tmp_path: Path, older_numpy: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    world = make_small_world(tmp_path)
    named: dict[str, str] = {}
    if database == "mysql":
        make: MakeMySqlStore = request.getfixturevalue("mysql_store")
        make(world.store, world.kind)
        named = {"database": "review"}
    run_id = stopped_at_score(world, **named)
    _as_it_is(older_numpy)
    with pytest.raises(
        Refused, match=rf"library numpy: was 1.0.0, is {NUMPY}\n  → .*resume {run_id} .*--accept numpy"
    ) as refused:
        batchscore.resume(run_id, store=world.store, inline=True)
    assert refused.value.reason == "plan_changed"
    row = batchscore.resume(run_id, store=world.store, inline=True, accept=["numpy"], by="Ada")
    assert (row.run_id, row.state) == (run_id, "finished")
    reader = open_reader(world.store)
    (accepted,) = reader.accepted(run_id)
    assert (accepted.part, accepted.was, accepted.now, accepted.by, accepted.mixed) == (
        "library numpy",
        "1.0.0",
        NUMPY,
        "Ada",
        True,
    )
    acts = [(entry.act, entry.who, entry.detail) for entry, _ in reader.audit(run_id)]
    assert (Act.ACCEPTED, "Ada", f"library numpy: 1.0.0 → {NUMPY}") in acts
    assert verify_run(row, reader, world.store).true
    assert "accepted: library numpy 1.0.0" in call("status", run_id, "--store", world.store).output
    assert json.loads(call("status", run_id, "--store", world.store, "--json").stdout)["accepted"][0]["by"] == "Ada"
    page = write_page(report_of(reader, run_id, str(world.store)), tmp_path / "report.html").read_text(encoding="utf-8")
    assert f"library numpy 1.0.0 → {NUMPY}, accepted by Ada" in page


def _as_it_is(patched: pytest.MonkeyPatch) -> None:
    """Plans and addresses are of the libraries that are here."""
    for module in (pinned, definitions):
        patched.setattr(module, "library_versions", library_versions)


def test_what_an_accepted_library_made_serves_no_other_run(tmp_path: Path, older_numpy: pytest.MonkeyPatch) -> None:
    world = make_small_world(tmp_path)
    run_id = stopped_at_score(world)
    _as_it_is(older_numpy)
    batchscore.resume(run_id, store=world.store, inline=True, accept=["numpy"])
    older = tuple((name, "1.0.0" if name == "numpy" else version) for name, version in library_versions())
    for module in (pinned, definitions):
        older_numpy.setattr(module, "library_versions", lambda: older)
    made = Noted()
    walk(world, InlineExecutor(made), again=True)
    n_score = len(open_reader(world.store).partitions(run_id, Stage.SCORE))
    assert made.numbers(Stage.SCORE) == list(range(2, n_score)), "the two that were scored before anything was accepted are taken"


def test_an_acceptance_is_of_one_version_and_is_not_asked_again(tmp_path: Path, older_numpy: pytest.MonkeyPatch) -> None:
    world = make_small_world(tmp_path)
    plan = make_plan(world.spec())
    store = open_store(world.store, world.kind)
    handle, row = store.open(plan, owner="first")
    _as_it_is(older_numpy)
    made, accepted = plan_again(row, accepts=["library numpy"], by="Ada")
    assert made.digest == plan.digest
    store.accept(handle, accepted)
    store.accept(handle, accepted)
    store.close(handle, "interrupted")
    standing = store.reader().accepted(row.run_id)
    assert len(standing) == 1
    assert plan_again(row, standing) == (made, ())
    assert plan_again(row, standing, accepts=["numpy"])[1] == (), "said twice it is said once"
    third = tuple((name, "9.9" if name == "numpy" else version) for name, version in library_versions())
    older_numpy.setattr(pinned, "library_versions", lambda: third)
    with pytest.raises(Refused, match=r"library numpy: was 1\.0\.0, is 9\.9"):
        plan_again(row, standing)


def test_each_part_that_differs_is_named_and_what_was_asked_cannot_be_accepted(tmp_path: Path) -> None:
    world = make_small_world(tmp_path)
    run_id = stopped_at_score(world)
    mails = tmp_path / "mails" / "day=2026-01-14" / "part.parquet"
    pq.write_table(pq.read_table(mails).slice(1), mails)
    pq.write_table(pq.read_table(mails), mails.with_name("late.parquet"))
    shutil.rmtree(tmp_path / "bundle")
    pack(tmp_path, np.random.default_rng(5))
    with pytest.raises(Refused) as refused:
        batchscore.resume(run_id, store=world.store, inline=True)
    told = {problem.where: problem.what for problem in refused.value.problems}
    assert set(told) == {"bundle small", "source mails"}
    assert (
        "1 file(s) changed, such as day=2026-01-14/part.parquet; 1 file(s) new, such as day=2026-01-14/late.parquet"
        in told["source mails"]
    )
    with pytest.raises(Refused) as refused:
        batchscore.resume(run_id, store=world.store, inline=True, accept=["source mails", "bundle small", "numpi"])
    assert refused.value.reason == "not_acceptable"
    assert [problem.where for problem in refused.value.problems] == ["source mails", "bundle small", "numpi"]
    assert open_reader(world.store).accepted(run_id) == ()


def test_an_approved_plan_is_held_to_by_its_file_or_by_a_run_of_it(tmp_path: Path, older_numpy: pytest.MonkeyPatch) -> None:
    world = make_small_world(tmp_path)
    world.spec()
    kept = tmp_path / "plan.json"
    kept.write_text(call("plan", world.spec_path, "--json").stdout)
    approved = make_plan(world.spec())
    world.spec(policy="{queue: abuse, threshold: 0.3, budget: 20}")
    with pytest.raises(Refused, match="policy: was") as refused:
        call("run", world.spec_path, "--plan", kept, "--inline")
    assert [problem.where for problem in refused.value.problems] == ["policy"]
    with pytest.raises(Refused, match="cannot be named") as unknown:
        call("run", world.spec_path, "--plan", approved.digest[:12], "--inline")
    assert "plan.json" in unknown.value.remedy
    store = open_store(world.store, world.kind)
    store.close(store.open(approved, owner="first")[0], "interrupted")
    with pytest.raises(Refused, match="policy: was"):
        call("run", world.spec_path, "--plan", approved.digest[:12], "--inline")
    world.spec(policy="{queue: abuse, threshold: 0.2, budget: 20}")
    _as_it_is(older_numpy)
    with pytest.raises(Refused, match=r"--plan .*plan\.json --accept numpy"):
        call("run", world.spec_path, "--plan", kept, "--inline")
    ended = json.loads(
        call("run", world.spec_path, "--plan", kept, "--accept", "numpy", "--by", "Ada", "--inline", "--json").stdout
    )
    (accepted,) = store.reader().accepted(ended["run"]["run_id"])
    assert (accepted.by, accepted.mixed) == ("Ada", False), "the run is whole: it was planned with what is here"


@pytest.mark.parametrize("spoilt", ["pinned", "text"])
def test_a_plan_that_was_edited_is_refused(spoilt: str, tmp_path: Path) -> None:
    world = make_small_world(tmp_path)
    world.spec()
    held: dict[str, Any] = json.loads(call("plan", world.spec_path, "--json").stdout)
    held["pinned"]["policy"] = "0" * 64
    kept = tmp_path / "plan.json"
    kept.write_text(json.dumps(held) if spoilt == "pinned" else "pinned: {}")
    with pytest.raises(Refused, match="plan_unreadable"):
        call("run", world.spec_path, "--plan", kept, "--inline")
    assert not world.store.exists()
