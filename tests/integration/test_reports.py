"""Reports of whole runs on a small world: at any moment, of any end, exact however cut, and never with an account in them."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore.errors import Interrupted, QuarantineStop, Refused
from batchscore.executors.inline import InlineExecutor
from batchscore.keys import IdKind
from batchscore.operations.difference import difference
from batchscore.operations.report import report_of, write_page
from batchscore.plan import Stage
from batchscore.planner import make_plan
from batchscore.report.histogram import histogram
from batchscore.report.model import Report
from batchscore.report.words import headline
from batchscore.sources.segment import SEGMENT
from batchscore.store import open_reader
from tests.fake_attempts import AtTheNth, Poisoned
from tests.run_digest import run_digest
from tests.small_world import SmallWorld, make_small_world
from tests.whole_runs import walk


def report(world: SmallWorld, run_id: str | None = None, store: str = "store") -> Report:
    reader = open_reader(world.folder / store)
    return report_of(reader, run_id or reader.runs()[0].run_id, store)


def test_a_finished_run_is_told_whole(world: SmallWorld) -> None:
    row = walk(world)
    told = report(world)
    assert told.gaps == ()
    assert told.proof_state == "closes"
    assert headline(told).tone == "good"
    assert told.flags is not None
    assert told.flags.n_released == told.flags.n_to_release > 0
    assert sum(date.n_selected for date in told.flags.dates) == told.flags.n_selected == told.flags.n_explained
    stages = {stage.stage: stage for stage in told.stages}
    assert list(stages) == ["freeze", "rollup", "merge", "score", "decide", "reasons", "prove", "release"]
    assert (stages["freeze"].rows_planned, stages["freeze"].rows_done) == (world.n_accounts, world.n_accounts)
    assert (stages["rollup"].rows_planned, stages["rollup"].rows_done) == (2_800, 2_800)
    assert stages["score"].n_committed == stages["score"].n_partitions == 6
    assert stages["score"].rows_done == stages["decide"].rows_done == sum(sum(held.counts) for held in told.histograms)
    assert {"read", "features", "predict", "write", "settle"} <= stages["score"].attempt_s.keys()
    assert {"executor", "python", "xgboost", "pyarrow"} <= told.environment.keys()
    assert told.environment["executor"] == "inline, in this process"
    assert told.environment["explainer"].startswith(("compiled", "xgboost"))
    assert {"plan", "feature set", "policy", "source mails", "bundle small", "decision", "memory"} <= told.digests.keys()
    assert told.digests["plan"] == row.plan_digest
    assert told.next[0].startswith("batchscore queue --store store")


@pytest.mark.parametrize("rows", [1_000_000, 299, 50, 7])
def test_histograms_are_those_of_the_scores_however_the_run_was_cut(world: SmallWorld, rows: int) -> None:
    row = walk(world, partition_rows=str(rows))
    outputs = [output for held in open_reader(world.store).receipts(row.run_id, Stage.SCORE) for output in held.outputs]
    files = [output.path for output in outputs if output.role == "scores"]
    scores = pa.concat_tables([pq.read_table(world.store / path).replace_schema_metadata(None) for path in files])
    told = report(world)
    assert [held.as_of for held in told.histograms] == list(row.plan.spec.as_ofs())
    for held in told.histograms:
        mask = np.array([as_of == held.as_of for as_of in scores["as_of"].to_pylist()])
        assert held.counts == histogram(scores["score"].to_numpy()[mask])


def test_a_stopped_run_is_told_as_far_as_it_came_and_what_resumes_it(world: SmallWorld) -> None:
    stop = threading.Event()
    with pytest.raises(Interrupted):
        walk(world, InlineExecutor(AtTheNth(2, stop.set, Stage.SCORE)), stop=stop)
    told = report(world)
    assert (told.proof_state, told.proof, told.flags, told.gaps) == ("not yet", None, None, ())
    assert headline(told).text == "The run was stopped; it can be resumed: score, 2 of 6 partitions committed."
    score = next(stage for stage in told.stages if stage.stage == "score")
    assert 0 < sum(sum(held.counts) for held in told.histograms) == (score.rows_done or 0)
    assert told.next[0] == f"batchscore resume {told.run.run_id} --store store"


def test_a_quarantined_partition_is_named_and_its_accounts_are_counted(world: SmallWorld) -> None:
    walk(world, InlineExecutor(Poisoned((Stage.SCORE, 2))))
    told = report(world)
    assert told.proof_state == "closes"
    assert headline(told).tone == "look"
    assert re.search(r"\d+ of \d+ scores are missing", headline(told).text)
    assert [(failure.stage, failure.number, failure.state) for failure in told.failures] == [("score", 2, "quarantined")]
    assert told.gaps == ()


def test_a_run_that_ended_at_a_quarantined_rollup_is_told(world: SmallWorld) -> None:
    with pytest.raises(QuarantineStop):
        walk(world, InlineExecutor(Poisoned(Stage.ROLLUP)))
    told = report(world)
    assert (headline(told).tone, told.proof_state, told.histograms) == ("bad", "not yet", ())
    assert told.failures[0].reason == "input_corrupt"


def test_a_run_that_releases_nothing_says_what_it_simulated(world: SmallWorld) -> None:
    walk(world, release="none")
    told = report(world)
    assert told.flags is not None
    assert (told.flags.n_to_release, told.flags.n_released) == (0, 0)
    assert f"{told.flags.n_selected} flags simulated" in headline(told).text


def test_the_next_generation_says_what_it_reused_and_that_nothing_drifted(world: SmallWorld) -> None:
    first = walk(world)
    second = walk(world, again=True)
    assert report(world, first.run_id).drift is None
    told = report(world, second.run_id)
    stages = {stage.stage: stage for stage in told.stages}
    assert (stages["score"].n_reused, stages["score"].n_committed, stages["score"].attempt_s) == (6, 6, {})
    assert told.drift is not None
    assert told.drift.against_run == first.run_id
    assert [line.psi for line in told.drift.lines] == [0.0, 0.0]
    assert f"batchscore report diff {first.run_id} {second.run_id} --store store" in told.next


def test_files_that_are_gone_leave_gaps_and_the_rest_is_told(world: SmallWorld) -> None:
    row = walk(world)
    receipts = list(open_reader(world.store).receipts(row.run_id, Stage.SCORE))
    (world.store / receipts[0].outputs[0].path).unlink()
    assert row.decision is not None
    Path(row.decision.path).write_bytes(b"no Parquet")
    told = report(world)
    assert told.flags is None
    assert any(gap.startswith("histograms: 1 of 6 score files") for gap in told.gaps)
    assert any(gap.startswith("proof: ") for gap in told.gaps), "the key digests of its accounts stood in that file"
    assert any(gap.startswith("flags: ") for gap in told.gaps)
    assert told.proof_state == "not readable"
    assert "What could not be read" in write_page(told, world.folder / "r.html").read_text()


@pytest.mark.parametrize("kind", ["integer", "string"])
def test_no_account_stands_in_a_report_or_its_page(tmp_path: Path, kind: IdKind) -> None:
    world = make_small_world(tmp_path, kind=kind)
    row = walk(world, segment="plan")
    assert row.decision is not None
    ids = set(map(str, pq.read_table(row.decision.path)["account_id"].to_pylist()))
    told = report(world)
    page = write_page(told, tmp_path / "deep" / "report.html").read_text()
    words = set(re.split(r"[^\wÄé]+", page + told.model_dump_json()))
    assert not {account for account in ids if len(account) > 6} & words


def test_a_segment_groups_flags_and_changes_no_score(world: SmallWorld) -> None:
    plain_run = walk(world, store="plain")
    row = walk(world, segment="plan")
    assert run_digest(world.store, row.run_id) == run_digest(world.folder / "plain", plain_run.run_id)
    assert row.plan.pinned["segment"] == "plan"
    assert row.plan.pinned["feature set"] == plain_run.plan.pinned["feature set"]
    assert row.plan.differences(plain_run.plan.pinned) == ("segment",)
    assert row.decision is not None
    decided = pq.read_table(row.decision.path).to_pylist()
    plans = {account["id"]: account["plan"] for account in pq.read_table(world.folder / "accounts").to_pylist()}
    expected: dict[str | None, int] = {}
    for flag in decided:
        name = str(plans[flag["account_id"]])
        expected[name] = expected.get(name, 0) + 1
    told = report(world)
    assert told.flags is not None
    assert told.flags.segments is not None
    assert {group.segment: group.n_selected for group in told.flags.segments.shown} == expected
    assert report(world, store="plain").flags.segments is None  # type: ignore[union-attr]


def with_column(world: SmallWorld, name: str, make: object) -> None:
    """Give every accounts file a column more; ``make``: n → array."""
    for file in sorted((world.folder / "accounts").glob("*.parquet")):
        table = pq.read_table(file)
        pq.write_table(table.append_column(name, make(len(table))), file)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda n: pa.array(["<b>\x1b[1m"] * (n - n // 2) + [None] * (n // 2)), {"<b>\x1b[1m", None}),
        (lambda n: pa.array(["x" * 300] * n).dictionary_encode(), {"x" * 80}),
        (lambda n: pa.array([number % 2 == 0 for number in range(n)]), {"true", "false"}),
        (lambda n: pa.array([2**64 - 1] * n, pa.uint64()), {str(2**64 - 1)}),
        (pa.nulls, {None}),
    ],
    ids=["text", "dictionary", "bool", "uint64", "null"],
)
def test_text_integers_and_bools_name_segments(world: SmallWorld, make: object, names: set[str | None]) -> None:
    with_column(world, "group", make)
    walk(world, segment="group")
    told = report(world)
    assert told.flags is not None
    assert told.flags.segments is not None
    assert {group.segment for group in told.flags.segments.shown} == names
    page = write_page(told, world.folder / "r.html").read_text()
    assert "<b>" not in page
    assert "\x1b" not in page


@pytest.mark.parametrize(
    ("segment", "problem"),
    [
        ("id", "is the account id"),
        ("created_at", "is a time"),
        ("no_such", "column_missing"),
        ("ratio", "column_type: is double"),
        ('""', "at least 1 character"),
    ],
)
def test_a_column_that_names_no_group_is_refused_at_plan(world: SmallWorld, segment: str, problem: str) -> None:
    with_column(world, "ratio", lambda n: pa.array([0.5] * n))
    with pytest.raises(Refused) as refusal:
        make_plan(world.spec(segment=segment))
    assert problem in str(refusal.value)


def test_a_segment_that_features_read_too_is_frozen_once_for_each(world: SmallWorld) -> None:
    row = walk(world, segment="plan")
    frozen = [held for receipt in open_reader(world.store).receipts(row.run_id, Stage.FREEZE) for held in receipt.outputs]
    (snapshot,) = (held for held in frozen if held.role == "snapshot")
    table = pq.read_table(world.store / snapshot.path)
    assert table[SEGMENT].to_pylist() == [str(value) for value in table["plan"].to_pylist()]


def test_two_runs_of_other_policies_are_compared(world: SmallWorld) -> None:
    a = walk(world, release="none")
    b = walk(world, release="none", policy="{queue: abuse, threshold: 0.2, budget: 5}")
    found = difference(open_reader(world.store), a.run_id, b.run_id, "store")
    assert [part.part for part in found.pinned] == ["policy"]
    assert [pair.psi for pair in found.scores] == [0.0, 0.0]
    assert all((pair.n_a, pair.n_b, pair.n_moved) == (20, 5, 0) for pair in found.flags[:1])
    assert found.flags[0].n_dropped == 15
    assert (found.new_in_queue, found.dropped_in_queue, found.gaps) == ((), (), ())


def test_accounts_are_named_in_a_comparison_only_where_the_queue_shows_them(world: SmallWorld) -> None:
    a = walk(world, as_of="2026-01-08")
    b = walk(world, as_of="2026-01-15")
    reader = open_reader(world.store)
    found = difference(reader, a.run_id, b.run_id, "store")
    in_queue = {row.flag.account_id: row.flag.run_id for row in reader.queue(None, limit=1_000)}
    assert found.new_in_queue
    assert all(in_queue[row.flag.account_id] == b.run_id for row in found.new_in_queue)
    assert all(in_queue[row.flag.account_id] == a.run_id for row in found.dropped_in_queue)
    assert [(pair.n_a > 0, pair.n_b > 0, pair.psi) for pair in found.scores] == [(True, False, None), (False, True, None)]


def test_where_a_decision_is_gone_no_flag_is_called_new_or_dropped(world: SmallWorld) -> None:
    a = walk(world, as_of="2026-01-08")
    b = walk(world, as_of="2026-01-15")
    assert a.decision is not None
    Path(a.decision.path).unlink()
    found = difference(open_reader(world.store), a.run_id, b.run_id, "store")
    assert (found.flags, found.new_in_queue) == ((), ())
    assert any(gap.startswith(f"decision of {a.run_id}") for gap in found.gaps)


def test_a_page_that_cannot_be_written_is_refused(world: SmallWorld) -> None:
    walk(world)
    (world.folder / "taken").write_text("a file")
    with pytest.raises(Refused, match="report_unwritable"):
        write_page(report(world), world.folder / "taken" / "r.html")
    assert not list(world.folder.rglob("*.tmp"))
