"""A run beyond an error budget is held before its release, with the table; an approval lets exactly that go on."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchscore
from batchscore.budgets import count_by_segment
from batchscore.digest import KeyDigest
from batchscore.errors import Held, Refused
from batchscore.executors.inline import InlineExecutor
from batchscore.layout import Definitions
from batchscore.operations.report import report_of, write_page
from batchscore.plan import Stage
from batchscore.ports import RunRow
from batchscore.proving import prove_run
from batchscore.report.limits import beyond_in_segments
from batchscore.spec import SegmentLimits
from batchscore.store import open_reader
from tests.fake_attempts import Poisoned
from tests.small_world import SmallWorld, make_small_world
from tests.whole_runs import walk


def with_regions(folder: Path) -> SmallWorld:
    """A world of two regions of some 150 accounts, and two accounts outside; 12 of ``north`` cannot be scored."""
    world = make_small_world(folder)
    accounts = pq.read_table(folder / "accounts")
    for path in (folder / "accounts").glob("*.parquet"):
        path.unlink()
    names: list[str | None] = ["north" if number % 2 else "south" for number in range(len(accounts))]
    names[0], names[2] = "lone", None
    plan = [float("inf") if name == "north" and number < 24 else 1.0 for number, name in enumerate(names)]
    accounts = accounts.set_column(accounts.column_names.index("plan"), "plan", pa.array(plan))
    pq.write_table(accounts.append_column("region", pa.array(names)), folder / "accounts" / "all.parquet")
    world.text["segment"] = "region"
    return world


def with_one_part_set_aside(world: SmallWorld, **changes: Any) -> RunRow:
    return walk(world, InlineExecutor(Poisoned((Stage.SCORE, 2))), **changes)


def test_a_run_beyond_its_budget_is_held_unreleased_until_approved(tmp_path: Path) -> None:
    world = make_small_world(tmp_path)
    with pytest.raises(Held, match=r"errors_held(.|\n)*quarantined, 2026-01-15: more than 1\.0000% of") as held:
        with_one_part_set_aside(world, limits="{quarantined: 0.01, rejected: 0.5}")
    assert held.value.exit_code == 4
    (row,) = open_reader(world.store).runs()
    (hold,) = open_reader(world.store).holds(row.run_id)
    assert (row.state, row.released_at, hold.subject, [one.of for one in hold.findings]) == (
        "held",
        None,
        "errors",
        ["quarantined"],
    )
    with pytest.raises(Held):
        batchscore.resume(row.run_id, store=world.store, inline=True)
    batchscore.approve(row.run_id, store=world.store, by="Ada", because="known")
    row = batchscore.resume(row.run_id, store=world.store, inline=True)
    assert row.state == "finished"
    assert row.released_at is not None


def test_a_run_within_its_budgets_or_that_releases_nothing_goes_on(tmp_path: Path) -> None:
    world = make_small_world(tmp_path)
    assert with_one_part_set_aside(world, limits="{quarantined: 0.9}").released_at is not None
    assert with_one_part_set_aside(world, limits="{quarantined: 0}", release="none").state == "finished"


@pytest.mark.parametrize("partition_rows", ["50", "400"])
def test_a_segment_beyond_its_budget_holds_the_run_where_the_whole_is_within(partition_rows: str, tmp_path: Path) -> None:
    world = with_regions(tmp_path)
    each = "{rejected: 0.05, quarantined: 1, at_least: 20}"
    with pytest.raises(Held, match=r"rejected in segment north, 2026-01-15: more than 5\.0000% of \d+ planned") as held:
        with_one_part_set_aside(world, limits=f"{{rejected: 0.5, by_segment: {each}}}", partition_rows=partition_rows)
    assert len(held.value.problems) == 1
    (row,) = open_reader(world.store).runs()
    report = report_of(open_reader(world.store), row.run_id, "store")
    (budget,) = [one for one in report.budgets if one.of == "rejected"]
    assert (budget.n, budget.share, budget.by_segment) == (report.holds[0].findings[0].n, 0.5, 0.05)
    page = write_page(report, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Error budgets" in page
    assert "rejected in segment north" in page
    batchscore.approve(row.run_id, store=world.store, by="Ada", because="known")
    assert batchscore.resume(row.run_id, store=world.store, inline=True).released_at is not None


def test_segments_add_up_to_the_proof_however_the_accounts_are_cut(tmp_path: Path) -> None:
    world = with_regions(tmp_path)
    text = (tmp_path / "features.yaml").read_text()
    (tmp_path / "features.yaml").write_text(text + "coverage: 0.9\n")
    counted = []
    for partition_rows in ("50", "120"):
        row = with_one_part_set_aside(world, release="none", partition_rows=partition_rows, store=f"store{partition_rows}")
        reader, definitions = open_reader(tmp_path / f"store{partition_rows}"), Definitions.of(row.plan)
        proof = prove_run(row.plan, definitions, reader, row.run_id).as_ofs[-1]
        counts = count_by_segment(definitions, reader, row.run_id, proof.as_of)
        for name in ("planned", "rejected", "unscoreable", "quarantined"):
            assert sum(held[name] for held in counts.values()) == KeyDigest.parse(getattr(proof, name)).n, name
        assert set(counts) <= {"north", "south", "lone", "none"}
        counted.append({segment: held["planned"] for segment, held in counts.items()})
    assert counted[0] == counted[1]


def test_small_segments_are_counted_together_and_named_by_nobody() -> None:
    limits = SegmentLimits(rejected=0.1, at_least=20)
    counts = {
        "large": {"planned": 100, "rejected": 10},
        "anna": {"planned": 1, "rejected": 1},
        "b": {"planned": 19, "rejected": 2},
    }
    (found,) = beyond_in_segments(counts, limits, date(2026, 1, 15))
    assert (found.of, found.n, found.high) == ("rejected in small segments together", 3, 2)


def test_budgets_by_segment_need_one(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="the spec names none"):
        make_small_world(tmp_path).spec(limits="{by_segment: {rejected: 0.1}}")
