"""Attempts that fail in a whole run: what is tried again, what is set aside, what ends the run, and who is not blamed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from batchscore.attempt import attempt
from batchscore.errors import PartitionError, QuarantineStop
from batchscore.events import Event, PartitionFailed, StageStarted, StallFound
from batchscore.executors.connect import local_cluster
from batchscore.executors.inline import InlineExecutor
from batchscore.layout import Definitions
from batchscore.pipeline import run
from batchscore.plan import Stage, Task
from batchscore.planner import make_plan
from batchscore.ports import Worklist
from batchscore.proving import prove_run
from batchscore.receipt import Failed, Outcome, Receipt, Stalled
from batchscore.store import open_reader, open_store
from tests import fake_attempts as fakes
from tests.small_world import SmallWorld, make_small_world
from tests.whole_runs import Heard, walk


class ContradictingExecutor(InlineExecutor):
    """Inline, but once the second score partition came home it is reported as failed for good, as by a zombie of its attempt."""

    def outcomes(self, worklist: Worklist) -> Iterator[Sequence[Outcome]]:
        told = False
        for outcomes in super().outcomes(worklist):
            if not outcomes:
                continue
            yield outcomes
            assert not isinstance(outcomes[0], Stalled)
            task = outcomes[0].task
            if (task.partition.stage, task.partition.number) == (Stage.SCORE, 1) and not told:
                told = True
                yield [Failed(task=task, reason="worker_lost", message="a zombie", final=True)]


def test_a_poisoned_score_partition_is_set_aside_alone_and_the_proof_names_its_accounts(world: SmallWorld) -> None:
    heard = Heard()
    row = walk(world, InlineExecutor(fakes.Poisoned((Stage.SCORE, 2))), heard=heard)
    assert row.state == "finished"
    assert [event.quarantined for event in heard if isinstance(event, PartitionFailed)] == [True]
    proof = prove_run(row.plan, Definitions.of(row.plan), open_reader(world.store), row.run_id)
    assert proof.closes
    assert all(not line.quarantined.startswith("0:") for line in proof.as_ofs)


def test_of_a_hundred_partitions_one_that_breaks_its_workers_is_tried_alone_and_set_aside_and_no_other_is_blamed(
    tmp_path: Path,
) -> None:
    world = make_small_world(tmp_path, n_accounts=1_200)
    heard = Heard()
    with local_cluster(fakes.die_at_score_two, n_workers=2) as executor:
        row = walk(world, executor, heard=heard, partition_rows="12")
    assert row.state == "finished"
    reader = open_reader(world.store)
    (scored,) = (stage for stage in reader.stages(row.run_id) if stage.stage is Stage.SCORE)
    assert (scored.n_partitions, scored.n_committed, scored.n_quarantined) == (100, 99, 1)
    (aside,) = reader.quarantined(row.run_id)
    assert (aside.stage, aside.number, aside.reason) == (Stage.SCORE, 2, "worker_lost")
    assert {(event.stage, event.number) for event in heard if isinstance(event, PartitionFailed)} == {("score", 2)}
    assert not [event for event in heard if isinstance(event, StallFound)]
    assert prove_run(row.plan, Definitions.of(row.plan), reader, row.run_id).closes


def test_a_partition_that_fails_twice_and_then_succeeds_is_committed(world: SmallWorld) -> None:
    failures = {"left": 2}

    def flaky(task: Task) -> Receipt:
        if task.partition.stage is Stage.SCORE and task.partition.number == 1 and failures["left"]:
            failures["left"] -= 1
            raise OSError("a passing fault")
        return attempt(task)

    row = walk(world, InlineExecutor(flaky))
    assert row.state == "finished"
    assert open_reader(world.store).quarantined(row.run_id) == ()


def test_a_receipt_that_waits_is_not_lost_to_a_quarantine_of_its_partition(world: SmallWorld) -> None:
    row = walk(world, ContradictingExecutor(attempt))
    assert row.state == "finished"
    assert open_reader(world.store).quarantined(row.run_id) == ()


@pytest.mark.parametrize("stage", [Stage.FREEZE, Stage.ROLLUP])
@pytest.mark.parametrize("left", [b"", b"PAR1 cut short"])
def test_a_damaged_file_of_the_store_is_named_by_the_driver_with_its_remedy(world: SmallWorld, stage: Stage, left: bytes) -> None:
    def damaging(task: Task) -> Receipt:
        receipt = attempt(task)
        if task.partition.stage is stage:
            (world.store / receipt.outputs[0].path).write_bytes(left)
        return receipt

    with pytest.raises(PartitionError, match="batchscore run SPEC --again") as damaged:
        walk(world, InlineExecutor(damaging))
    assert damaged.value.reason == "input_corrupt"
    (row,) = open_reader(world.store).runs()
    assert row.state == "failed"


def test_a_quarantined_rollup_ends_the_run_before_anything_is_scored(world: SmallWorld) -> None:
    heard = Heard()
    with pytest.raises(QuarantineStop) as stopped:
        walk(world, InlineExecutor(fakes.Poisoned(Stage.ROLLUP)), heard=heard)
    assert stopped.value.exit_code == 3
    assert "score" not in [event.stage for event in heard if isinstance(event, StageStarted)]
    assert open_reader(world.store).queue(None, limit=1) == ()


def test_a_bug_leaves_the_run_failed_with_its_type_and_place_and_no_value(world: SmallWorld) -> None:
    def observe(event: Event) -> None:
        if isinstance(event, StageStarted):
            raise KeyError("anna@example.org")

    plan = make_plan(world.spec())
    with pytest.raises(KeyError):
        run(plan, executor=InlineExecutor(attempt), store=open_store(world.store, world.kind), observer=observe)
    (row,) = open_reader(world.store).runs()
    assert row.state == "failed"
    assert re.fullmatch(r"KeyError at pipeline\.py:\d+", row.why)
