"""Whole runs on a small world: every account proven, what resumes, what is reused, what is told and released."""

from __future__ import annotations

import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore.attempt import attempt
from batchscore.errors import Interrupted, Refused
from batchscore.events import PartitionCommitted, StageStarted
from batchscore.executors.inline import InlineExecutor
from batchscore.layout import Definitions
from batchscore.plan import Stage, Task
from batchscore.proving import prove_run
from batchscore.receipt import Receipt
from batchscore.store import open_reader
from tests.fake_attempts import AtTheNth, Noted
from tests.small_world import SmallWorld
from tests.whole_runs import Heard, digest_of, walk


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
    made = Noted()
    second = walk(world, InlineExecutor(made), again=True)
    assert second.run_id != first.run_id
    assert set(made.stages) <= {Stage.REASONS}, "memory has changed, so the decision may; nothing else"


def test_another_threshold_decides_again_without_scoring_again(world: SmallWorld) -> None:
    walk(world)
    made = Noted()
    walk(world, InlineExecutor(made), policy="{queue: other, threshold: 0.3, budget: 5}")
    assert Stage.SCORE not in made.stages


def test_a_stopped_run_keeps_what_is_committed_and_resumes_to_equal_bits(world: SmallWorld) -> None:
    undisturbed = digest_of(world, walk(world, store="undisturbed"))
    stop = threading.Event()
    stopping = AtTheNth(3, stop.set, Stage.SCORE)
    with pytest.raises(Interrupted, match="batchscore resume"):
        walk(world, InlineExecutor(stopping), stop=stop, store="stopped")
    (row,) = open_reader(world.folder / "stopped").runs()
    assert row.state == "interrupted"
    before = set(stopping.tried)
    finished = walk(world, InlineExecutor(stopping), store="stopped")
    assert finished.run_id == row.run_id
    assert len(stopping.tried) == len(set(stopping.tried)), "nothing that was committed is done again"
    assert before < set(stopping.tried)
    assert digest_of(world, finished) == undisturbed


def test_a_killed_inline_driver_loses_no_finished_partition(world: SmallWorld) -> None:
    committed: list[int] = []

    def looking(task: Task) -> Receipt:
        if task.partition.stage is Stage.SCORE:
            committed.append(len(list(open_reader(world.store).receipts(task.run_id, Stage.SCORE))))
        return attempt(task)

    walk(world, InlineExecutor(looking))
    assert len(committed) > 2
    assert committed == list(range(len(committed)))


def test_progress_never_goes_back_and_adds_up(world: SmallWorld) -> None:
    heard = Heard()
    walk(world, heard=heard)
    for started in (event for event in heard if isinstance(event, StageStarted)):
        committed = [event for event in heard if isinstance(event, PartitionCommitted) and event.stage == started.stage]
        assert sum(event.n_rows for event in committed) + started.n_rows_done == started.n_rows
        assert len({event.number for event in committed}) == len(committed)


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


def test_a_store_whose_folder_cannot_be_made_is_refused_and_is_no_bug(world: SmallWorld) -> None:
    (world.folder / "a file").touch()
    with pytest.raises(Refused, match="the store's folder cannot be made: Not a directory") as refused:
        walk(world, store="a file/store")
    assert refused.value.reason == "write_failed"
