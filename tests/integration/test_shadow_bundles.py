"""Several bundles over one frame: each has the bits it has alone, and a shadow is in no flag's way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchscore.attempt import attempt
from batchscore.errors import PartitionError, Refused
from batchscore.events import Released
from batchscore.executors.guarded import attempted
from batchscore.executors.inline import InlineExecutor
from batchscore.features.frame import make_frames
from batchscore.layout import Definitions
from batchscore.operations.report import report_of
from batchscore.operations.retry import plan_retry
from batchscore.plan import Score, Stage, Task
from batchscore.planner import make_plan
from batchscore.ports import Worklist
from batchscore.proving import prove_run
from batchscore.receipt import Outcome, Receipt, Suspected
from batchscore.store import open_reader
from tests.fake_attempts import Noted
from tests.run_digest import run_digest
from tests.small_world import SmallWorld, make_small_world, pack
from tests.whole_runs import Heard, walk

BOTH = "[{path: candidate, shadow: true}, bundle]"


@pytest.fixture
def world(tmp_path: Path) -> SmallWorld:
    """Its bundle, and another one that learned from other rows: the candidate."""
    world = make_small_world(tmp_path)
    world.text["partition_rows"] = "150"
    pack(tmp_path, np.random.default_rng(2), name="candidate", place="candidate")
    return world


def contents(world: SmallWorld, store: str, stage: Stage) -> list[object]:
    """Of each partition of a run's stage what two attempts at it must agree in; addresses are a store's own."""
    reader = open_reader(world.folder / store)
    return [receipt.content()[1:] for receipt in reader.receipts(reader.runs()[0].run_id, stage)]


def test_two_bundles_in_one_pass_have_the_bits_of_two_runs_apart(world: SmallWorld) -> None:
    together = walk(world, bundles=BOTH, store="together")
    alone = walk(world, store="alone")
    walk(world, bundles="[candidate]", store="candidate-alone")
    assert contents(world, "together", Stage.SCORE) == contents(world, "alone", Stage.SCORE)
    assert contents(world, "together", Stage.SHADOW) == contents(world, "candidate-alone", Stage.SCORE)
    digests = {run_digest(world.folder / store, row.run_id) for store, row in (("together", together), ("alone", alone))}
    assert len(digests) == 1, "the flags too: a shadow flags nothing"


def test_features_are_made_once_for_all_bundles(world: SmallWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def counted(*arguments: Any) -> Any:
        made.append(arguments)
        return make_frames(*arguments)

    monkeypatch.setattr("batchscore.attempt.key_slice.make_frames", counted)
    row = walk(world, bundles=BOTH)
    reader = open_reader(world.store)
    n_partitions = len(reader.partitions(row.run_id, Stage.SCORE))
    assert len(made) == n_partitions + len(reader.partitions(row.run_id, Stage.REASONS))
    assert len(reader.partitions(row.run_id, Stage.SHADOW)) == n_partitions


def test_a_shadow_added_later_is_scored_alone_and_one_that_is_promoted_not_again(world: SmallWorld) -> None:
    made = Noted()
    walk(world)
    walk(world, InlineExecutor(made), bundles=BOTH)
    assert set(made.stages) <= {Stage.SHADOW, Stage.REASONS}
    made.tried.clear()
    walk(world, InlineExecutor(made), bundles="[candidate, {path: bundle, shadow: true}]")
    assert set(made.stages) == {Stage.REASONS}, "other flags, of scores that stand"


def test_a_shadow_that_fails_is_set_aside_by_itself_after_the_release(world: SmallWorld) -> None:
    undisturbed = walk(world, store="undisturbed")
    heard = Heard()

    def poisoned(task: Task) -> Receipt:
        shadows = [one for one in (task.partition, *task.beside) if one.stage is Stage.SHADOW and one.number == 0]
        if shadows:
            raise PartitionError("feature_limit", "a limit of the candidate is broken")
        return attempt(task)

    row = walk(world, InlineExecutor(poisoned), heard=heard, bundles=BOTH)
    reader = open_reader(world.store)
    assert [(aside.stage, aside.number) for aside in reader.quarantined(row.run_id)] == [(Stage.SHADOW, 0)]
    assert run_digest(world.store, row.run_id) == run_digest(world.folder / "undisturbed", undisturbed.run_id)
    kinds = [type(event).__name__ for event in heard]
    assert kinds.index("Released") < max(place for place, kind in enumerate(kinds) if kind == "StageStarted")
    assert any(isinstance(event, Released) and event.n_flags for event in heard)
    (shadow,) = Definitions.of(row.plan).shadows
    proof = prove_run(row.plan, Definitions.of(row.plan), reader, row.run_id, shadow)
    assert proof.closes, "who was set aside is named"
    assert all(not line.quarantined.startswith("0:") for line in proof.as_ofs)
    retry = plan_retry(row, make_plan(row.plan.spec), reader, "quarantined")
    assert {stage.stage: stage.n_redone for stage in retry.stages}[Stage.SHADOW] == 1


def test_a_failure_over_both_bundles_is_neithers_and_each_is_tried_by_itself(world: SmallWorld) -> None:
    tried: Counter[tuple[Stage, int]] = Counter()

    def flaky(task: Task) -> Receipt:
        tried[task.partition.stage, len(task.beside)] += 1
        if task.beside:
            raise RuntimeError
        return attempt(task)

    row = walk(world, InlineExecutor(flaky), bundles=BOTH)
    reader = open_reader(world.store)
    assert (reader.quarantined(row.run_id), reader.failures(row.run_id)) == ((), ())
    assert tried[Stage.SCORE, 0] == tried[Stage.SCORE, 1] == tried[Stage.SHADOW, 0] == 2


class LosesWorkers:
    """An executor whose worker is lost over every task of several partitions, and over no other."""

    def describe(self) -> str:
        return "a fake"

    def waiting(self) -> str:
        return ""

    def outcomes(self, worklist: Worklist) -> Iterator[Sequence[Outcome]]:
        while (task := worklist.next()) is not None:
            yield [Suspected(task=task, running=False) if task.beside else attempted(attempt, task)]


def test_a_worker_lost_twice_over_both_bundles_leads_to_each_being_tried_alone(world: SmallWorld) -> None:
    undisturbed = walk(world, store="undisturbed")
    row = walk(world, LosesWorkers(), bundles=BOTH)
    reader = open_reader(world.store)
    assert reader.quarantined(row.run_id) == ()
    assert {(one.stage, one.n_suspicions, one.n_failures) for one in reader.failures(row.run_id)} == {(Stage.SCORE, 2, 0)}
    assert run_digest(world.store, row.run_id) == run_digest(world.folder / "undisturbed", undisturbed.run_id)
    assert {stage.stage: stage.n_committed for stage in reader.stages(row.run_id)}[Stage.SHADOW] == 2


def test_a_report_tells_of_each_bundle_what_it_made_and_what_it_cost(world: SmallWorld) -> None:
    first = walk(world, bundles=BOTH)
    second = walk(world, bundles=BOTH, policy="{queue: other, budget: 5}")
    reader = open_reader(world.store)
    told = report_of(reader, first.run_id, "store")
    flagging, shadow = told.bundles
    assert [(one.name, one.shadow, one.proof_state) for one in told.bundles] == [
        ("small", False, "closes"),
        ("candidate", True, "closes"),
    ]
    assert flagging.n_scores == flagging.n_made == shadow.n_scores == shadow.n_made > 0
    assert 0 < shadow.own_s < sum(stage.attempt_s.get("features", 0) for stage in told.stages) + shadow.own_s
    assert sum(sum(held.counts) for held in shadow.histograms) == shadow.n_scores
    assert shadow.psi is not None
    assert [stage.stage for stage in told.stages][-1] == "shadow"
    assert told.gaps == ()
    again = report_of(reader, second.run_id, "store").bundles[1]
    assert (again.n_made, again.own_s) == (0, 0.0)
    assert again.drift is not None
    assert again.drift.latest.psi == 0.0


def test_a_plan_names_the_shadow_and_with_one_bundle_it_is_what_it_was(world: SmallWorld) -> None:
    alone, both = make_plan(world.spec()), make_plan(world.spec(bundles=BOTH))
    assert set(both.pinned) - set(alone.pinned) == {"shadow candidate"}
    assert {name: both.pinned[name] for name in alone.pinned} == alone.pinned
    assert [stage.stage for stage in both.stages][-1] == "shadow"
    assert list(both.bundle_names().values()) == ["small", "candidate"]


def test_a_damaged_bundle_is_refused_by_name_whichever_it_is(world: SmallWorld) -> None:
    model = world.folder / "candidate" / "model.ubj"
    model.write_bytes(model.read_bytes()[:-1] + b"\0")
    with pytest.raises(Refused, match="candidate") as damaged:
        make_plan(world.spec(bundles=BOTH))
    assert damaged.value.reason == "bundle_digest"


def test_two_bundles_of_one_name_are_refused(world: SmallWorld) -> None:
    pack(world.folder, np.random.default_rng(3), name="small", place="other")
    with pytest.raises(Refused, match="named 'small'"):
        make_plan(world.spec(bundles="[bundle, {path: other, shadow: true}]"))


def test_work_that_an_earlier_release_laid_out_is_read(world: SmallWorld) -> None:
    row = walk(world)
    work = open_reader(world.store).partitions(row.run_id, Stage.SCORE)[0].work
    assert isinstance(work, Score)
    held = work.model_dump(mode="json")
    assert Score.model_validate({**{name: held[name] for name in held if name != "bundle"}, "bundles": [held["bundle"]]}) == work
