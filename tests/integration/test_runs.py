"""Whole runs on a small world: same bits however cut, what resumes, what is quarantined, what is refused."""

from __future__ import annotations

import random
import re
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore.attempt import attempt, explaining
from batchscore.dispatch.limits import Limits
from batchscore.errors import Interrupted, PartitionError, QuarantineStop, Refused
from batchscore.events import Event, PartitionAlerted, PartitionCommitted, PartitionFailed, StageStarted
from batchscore.executors.connect import local_cluster
from batchscore.executors.dask_cluster import DaskExecutor
from batchscore.executors.guarded import Attempt, attempted
from batchscore.executors.inline import InlineExecutor
from batchscore.keys import IdKind
from batchscore.layout import Definitions
from batchscore.models import compiled_explainer
from batchscore.models.attribution_kernel import contributions
from batchscore.models.compiled_explainer import CompiledExplainer
from batchscore.models.contract import Matrix
from batchscore.models.loading import load_scorer
from batchscore.models.scorer import Scorer
from batchscore.pipeline import run
from batchscore.plan import Stage, Task
from batchscore.planner import make_plan
from batchscore.ports import Executor, RunRow, Worklist
from batchscore.proving import prove_run
from batchscore.receipt import Failed, Outcome, Receipt, Stalled
from batchscore.store import open_reader, open_store
from tests import fake_attempts as fakes
from tests.run_digest import run_digest
from tests.small_world import SmallWorld, make_small_world


class Heard(list[Event]):
    """An observer that remembers."""

    def __call__(self, event: Event) -> None:
        self.append(event)


class ShuffledExecutor:
    """Inline, but in an order of its own: takes everything first, then works it off at random."""

    def __init__(self, attempt: Attempt, seed: int) -> None:
        self._attempt = attempt
        self._chance = random.Random(seed)

    def describe(self) -> str:
        return "shuffled"

    def waiting(self) -> str:
        return ""

    def outcomes(self, worklist: Worklist) -> Iterator[Sequence[Outcome]]:
        waiting: deque[Task] = deque()
        while True:
            while (task := worklist.next()) is not None:
                waiting.append(task)
            if not waiting:
                return
            self._chance.shuffle(waiting)
            yield [attempted(self._attempt, waiting.popleft())]


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


@pytest.fixture
def world(tmp_path: Path) -> SmallWorld:
    return make_small_world(tmp_path)


def walk(
    world: SmallWorld, executor: Executor | None = None, *, again: bool = False, heard: Heard | None = None, **changes: str
) -> RunRow:
    plan = make_plan(world.spec(**changes))
    store = open_store(Path(plan.spec.store), world.kind)
    return run(
        plan,
        executor=executor or InlineExecutor(attempt),
        store=store,
        observer=heard if heard is not None else Heard(),
        again=again,
    )


def digest_of(world: SmallWorld, row: RunRow) -> str:
    return run_digest(Path(row.plan.spec.store), row.run_id)


@pytest.fixture(scope="module")
def two_workers() -> Iterator[DaskExecutor]:
    with local_cluster(attempt, n_workers=2) as executor:
        yield executor


@pytest.mark.parametrize("kind", ["integer", "string"])
def test_scores_and_flags_are_bit_equal_for_any_partition_size_and_order(tmp_path: Path, kind: IdKind) -> None:
    world = make_small_world(tmp_path, kind=kind)
    whole = digest_of(world, walk(world, store="whole", partition_rows="1000000"))
    for number, rows in enumerate((1, 7, 50, 299)):
        shuffled = ShuffledExecutor(attempt, seed=number)
        assert digest_of(world, walk(world, shuffled, store=f"cut-{rows}", partition_rows=str(rows))) == whole


def test_scores_and_flags_are_bit_equal_inline_and_on_one_and_two_workers(world: SmallWorld, two_workers: DaskExecutor) -> None:
    inline = digest_of(world, walk(world, store="inline"))
    assert digest_of(world, walk(world, two_workers, store="two")) == inline
    with local_cluster(attempt, n_workers=1) as one_worker:
        assert digest_of(world, walk(world, one_worker, store="one")) == inline


def scorers_of(row: RunRow, stage: Stage = Stage.SCORE) -> set[str]:
    return {receipt.scorer for receipt in open_reader(Path(row.plan.spec.store)).receipts(row.run_id, stage)}


def test_scores_and_flags_are_bit_equal_by_the_compiled_scorer_and_by_xgboost(world: SmallWorld) -> None:
    compiled = walk(world, store="compiled")
    by_xgboost = walk(world, InlineExecutor(partial(attempt, route="xgboost")), store="xgboost")
    assert (scorers_of(compiled), scorers_of(by_xgboost)) == ({"compiled"}, {"xgboost"})
    assert digest_of(world, compiled) == digest_of(world, by_xgboost)


@pytest.mark.parametrize("lies", [False, True])
def test_reasons_are_equal_by_tables_and_by_xgboost_and_tables_that_lie_are_told(
    world: SmallWorld, monkeypatch: pytest.MonkeyPatch, lies: bool
) -> None:
    def lying(*given: Any) -> Matrix:
        return np.nextafter(contributions(*given), np.float32(np.inf))

    def ready(*given: Any, **asked: Any) -> Scorer:
        scorer = load_scorer(*given, **asked)
        assert isinstance(scorer, CompiledExplainer)
        assert scorer.certify()
        if lies:
            monkeypatch.setattr(compiled_explainer, "contributions", lying)
        return scorer

    by_xgboost = walk(world, InlineExecutor(partial(attempt, route="xgboost")), store="xgboost")
    monkeypatch.setattr(explaining, "load_scorer", ready)
    heard = Heard()
    by_tables = walk(world, store="tables", heard=heard)
    assert scorers_of(by_xgboost, Stage.REASONS) == {"xgboost"}
    assert scorers_of(by_tables, Stage.REASONS) == {"xgboost" if lies else "compiled"}
    assert {event.alert for event in heard if isinstance(event, PartitionAlerted)} == ({"scorer_differs"} if lies else set())
    assert digest_of(world, by_tables) == digest_of(world, by_xgboost)


def test_what_an_attempt_put_right_by_itself_is_told_and_changes_nothing(world: SmallWorld) -> None:
    def alerted(task: Task) -> Receipt:
        return attempt(task).model_copy(update={"alerts": ("scorer_differs",)} if task.partition.stage is Stage.SCORE else {})

    heard = Heard()
    row = walk(world, InlineExecutor(alerted), store="alerted", heard=heard)
    alerts = [event for event in heard if isinstance(event, PartitionAlerted)]
    assert {event.alert for event in alerts} == {"scorer_differs"}
    assert len(alerts) == len({event.number for event in alerts}) > 1
    assert digest_of(world, row) == digest_of(world, walk(world, store="quiet"))


def test_the_proof_of_a_run_closes_and_counts_every_account(world: SmallWorld) -> None:
    row = walk(world)
    proof = prove_run(row.plan, Definitions.of(row.plan), open_reader(world.store), row.run_id)
    assert proof.closes
    assert proof.accounts.startswith(f"{world.n_accounts}:")


def test_a_finished_run_is_reported_and_no_task_is_made(world: SmallWorld) -> None:
    first = walk(world)

    def never(task: Task) -> Receipt:
        raise AssertionError

    heard = Heard()
    assert walk(world, InlineExecutor(never), heard=heard) == first
    assert heard == []


def test_the_next_generation_reuses_everything_and_gives_equal_scores(world: SmallWorld) -> None:
    first = walk(world)
    made: list[Task] = []

    def counted(task: Task) -> Receipt:
        made.append(task)
        return attempt(task)

    second = walk(world, InlineExecutor(counted), again=True)
    assert second.run_id != first.run_id
    assert {task.partition.stage for task in made} <= {Stage.REASONS}, "memory has changed, so the decision may; nothing else"


def test_another_threshold_decides_again_without_scoring_again(world: SmallWorld) -> None:
    walk(world)
    made: list[Stage] = []

    def counted(task: Task) -> Receipt:
        made.append(task.partition.stage)
        return attempt(task)

    walk(world, InlineExecutor(counted), policy="{queue: other, threshold: 0.3, budget: 5}")
    assert Stage.SCORE not in made


def test_a_stopped_run_keeps_what_is_committed_and_resumes_to_equal_bits(world: SmallWorld) -> None:
    undisturbed = digest_of(world, walk(world, store="undisturbed"))
    plan = make_plan(world.spec(store="stopped"))
    folder = Path(plan.spec.store)
    stop = threading.Event()
    made: list[tuple[Stage, int]] = []

    def stopping(task: Task) -> Receipt:
        made.append((task.partition.stage, task.partition.number))
        if len([stage for stage, _ in made if stage is Stage.SCORE]) == 3:
            stop.set()
        return attempt(task)

    with pytest.raises(Interrupted, match="batchscore resume"):
        run(
            plan,
            executor=InlineExecutor(stopping),
            store=open_store(folder, "integer"),
            observer=Heard(),
            limits=Limits(stop=stop),
        )
    (row,) = open_reader(folder).runs()
    assert row.state == "interrupted"
    before = set(made)
    finished = run(plan, executor=InlineExecutor(stopping), store=open_store(folder, "integer"), observer=Heard())
    assert finished.run_id == row.run_id
    assert len(made) == len(set(made)), "nothing that was committed is done again"
    assert before < set(made)
    assert digest_of(world, finished) == undisturbed


def test_a_poisoned_score_partition_is_set_aside_alone_and_the_proof_names_its_accounts(world: SmallWorld) -> None:
    def poisoned(task: Task) -> Receipt:
        if task.partition.stage is Stage.SCORE and task.partition.number == 2:
            raise PartitionError("input_corrupt", "a page does not decode", where="part.parquet")
        return attempt(task)

    heard = Heard()
    row = walk(world, InlineExecutor(poisoned), heard=heard)
    assert row.state == "finished"
    assert [event.quarantined for event in heard if isinstance(event, PartitionFailed)] == [True]
    proof = prove_run(row.plan, Definitions.of(row.plan), open_reader(world.store), row.run_id)
    assert proof.closes
    assert all(not line.quarantined.startswith("0:") for line in proof.as_ofs)


def test_a_partition_that_kills_its_workers_is_tried_alone_and_then_set_aside_and_no_other_is_blamed(world: SmallWorld) -> None:
    heard = Heard()
    with local_cluster(fakes.die_at_score_two, n_workers=2) as executor:
        row = walk(world, executor, heard=heard)
    assert row.state == "finished"
    (aside,) = open_reader(world.store).quarantined(row.run_id)
    assert (aside.stage, aside.number, aside.reason) == (Stage.SCORE, 2, "worker_lost")
    assert {(event.stage, event.number) for event in heard if isinstance(event, PartitionFailed)} == {("score", 2)}
    assert prove_run(row.plan, Definitions.of(row.plan), open_reader(world.store), row.run_id).closes


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


def test_a_killed_inline_driver_loses_no_finished_partition(world: SmallWorld) -> None:
    committed: list[int] = []

    def looking(task: Task) -> Receipt:
        if task.partition.stage is Stage.SCORE:
            committed.append(len(list(open_reader(world.store).receipts(task.run_id, Stage.SCORE))))
        return attempt(task)

    walk(world, InlineExecutor(looking))
    assert len(committed) > 2
    assert committed == list(range(len(committed)))


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


def test_a_quarantined_rollup_ends_the_run_before_anything_is_scored(world: SmallWorld) -> None:
    def poisoned(task: Task) -> Receipt:
        if task.partition.stage is Stage.ROLLUP:
            raise PartitionError("input_corrupt", "a page does not decode", where="part.parquet")
        return attempt(task)

    heard = Heard()
    with pytest.raises(QuarantineStop) as stopped:
        walk(world, InlineExecutor(poisoned), heard=heard)
    assert stopped.value.exit_code == 3
    assert "score" not in [event.stage for event in heard if isinstance(event, StageStarted)]
    assert open_reader(world.store).queue(None, limit=1) == ()


def test_progress_never_goes_back_and_adds_up(world: SmallWorld) -> None:
    heard = Heard()
    walk(world, heard=heard)
    for started in (event for event in heard if isinstance(event, StageStarted)):
        committed = [event for event in heard if isinstance(event, PartitionCommitted) and event.stage == started.stage]
        assert sum(event.n_rows for event in committed) + started.n_rows_done == started.n_rows
        assert len({event.number for event in committed}) == len(committed)


def test_a_plan_writes_nothing(world: SmallWorld) -> None:
    before = {path: path.stat().st_mtime_ns for path in world.folder.rglob("*")}
    spec = world.spec()
    (world.folder / "spec.yaml").touch()
    make_plan(spec)
    after = {path: path.stat().st_mtime_ns for path in world.folder.rglob("*")}
    assert set(before) == set(after)
    assert not world.store.exists()


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ("input", "source mails"),
        ("policy", "policy"),
        ("dates", "as-of dates"),
        ("features", "feature_contract"),
        ("bundle", "bundle_digest"),
    ],
)
def test_a_changed_pinned_part_is_named(world: SmallWorld, change: str, part: str) -> None:
    plan = make_plan(world.spec())
    changes = {}
    if change == "input":
        file = next((world.folder / "mails").rglob("*.parquet"))
        pq.write_table(pq.read_table(file).slice(1), file)
    elif change == "policy":
        changes = {"policy": "{queue: abuse, threshold: 0.25, budget: 20}"}
    elif change == "dates":
        changes = {"as_of": "2026-01-15"}
    elif change == "features":
        text = (world.folder / "features.yaml").read_text()
        (world.folder / "features.yaml").write_text(text.replace("window: 14d", "window: 13d"))
    elif change == "bundle":
        model = world.folder / "bundle" / "model.ubj"
        model.write_bytes(model.read_bytes()[:-1] + b"\0")
    try:
        assert plan.differences(make_plan(world.spec(**changes)).pinned) == (part,)
    except Refused as refusal:
        assert refusal.reason == part


def test_how_partitions_are_cut_is_no_part_of_a_plan(world: SmallWorld) -> None:
    assert make_plan(world.spec(partition_rows="7")).digest == make_plan(world.spec(partition_rows="70")).digest


def test_a_receipt_stays_under_two_kilobytes(world: SmallWorld) -> None:
    import pickle

    row = walk(world, as_of="{from: 2025-12-20, to: 2026-01-20, every: 1d}")
    reader = open_reader(world.store)
    sizes = [len(pickle.dumps(receipt)) for stage in Stage for receipt in reader.receipts(row.run_id, stage)]
    assert max(sizes) < 2_048


def test_nothing_is_released_unless_the_spec_says_so(world: SmallWorld) -> None:
    row = walk(world, release="none")
    assert row.state == "finished"
    assert open_reader(world.store).queue(None, limit=1) == ()


def test_events_of_unknown_accounts_are_counted_once_however_many_dates_are_scored(world: SmallWorld) -> None:
    file = next((world.folder / "mails").rglob("*.parquet"))
    mails = pq.read_table(file)
    strangers = mails.slice(0, 7).set_column(0, "id", pa.array([2**62 + number for number in range(7)], pa.int64()))
    pq.write_table(pa.concat_tables([mails, strangers]), file)
    row = walk(world, as_of="{from: 2026-01-05, to: 2026-01-14, every: 1d}")
    proof = prove_run(row.plan, Definitions.of(row.plan), open_reader(world.store), row.run_id)
    assert proof.closes
    assert proof.n_orphans == 7


def test_flags_of_many_score_partitions_are_explained_together_and_alike(
    world: SmallWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = walk(world, store="together", partition_rows="20")
    monkeypatch.setattr("batchscore.layout.explained.FLAGS_PER_PARTITION", 1)
    apart = walk(world, store="apart", partition_rows="20")
    n_together, n_apart = (
        len(open_reader(Path(row.plan.spec.store)).partitions(row.run_id, Stage.REASONS)) for row in (together, apart)
    )
    assert n_together < n_apart
    assert digest_of(world, together) == digest_of(world, apart)
