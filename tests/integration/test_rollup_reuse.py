"""Rollups are reused: what is new is rolled up and nothing else, tiny files go together, closed months become one file."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from batchscore.executors.inline import InlineExecutor
from batchscore.key_index import open_index
from batchscore.keys import IdKind
from batchscore.pipeline import run
from batchscore.plan import Score, Stage
from batchscore.planner import make_plan
from batchscore.ports import RunRow
from batchscore.store import open_reader, open_store
from tests.fake_attempts import Noted
from tests.run_digest import run_digest
from tests.small_world import SmallWorld, make_small_world

START = datetime(2026, 1, 1, tzinfo=UTC)


class Walker:
    """Runs the world's spec, again and again in one store, and says which stages were attempted how often."""

    def __init__(self, world: SmallWorld, **changes: str) -> None:
        self.world = world
        self.changes = changes

    def __call__(self, **changes: str) -> Counter[Stage]:
        made = Noted()
        plan = make_plan(self.world.spec(release="none", **self.changes, **changes))  # flags of one run are memory to the next
        self.row: RunRow = run(
            plan,
            executor=InlineExecutor(made),
            store=open_store(Path(plan.spec.store), self.world.kind),
            observer=lambda _: None,
        )
        return Counter(made.stages)

    @property
    def digest(self) -> str:
        return run_digest(Path(self.row.plan.spec.store), self.row.run_id)

    def files_opened(self) -> list[int]:
        """How many rollup files each score partition opens."""
        store = self.row.plan.spec.store
        works = [partition.work for partition in open_reader(Path(store)).partitions(self.row.run_id, Stage.SCORE)]
        return [
            len(open_index(store, self.world.kind, index).files(work.keys))
            for work in works
            if isinstance(work, Score)
            for index in work.rollups.values()
        ]


def mails_of(world: SmallWorld, n_days: int, per_day: int = 40) -> list[pa.Table]:
    """Mails of the world's accounts for so many days; some become known up to three days late, in the file of their own day."""
    rng = np.random.default_rng(3)
    ids = pa.concat_tables([pq.read_table(path) for path in sorted((world.folder / "accounts").glob("*.parquet"))])["id"]
    tables = []
    for day in range(n_days):
        at = [START + timedelta(days=day, seconds=int(second)) for second in rng.integers(0, 86_400, per_day)]
        known = [moment + timedelta(days=int(late)) for moment, late in zip(at, rng.choice([0, 0, 0, 3], per_day), strict=True)]
        tables.append(
            pa.table(
                {
                    "id": ids.take(pa.array(rng.zipf(1.3, per_day) % len(ids))),
                    "at": pa.array(at, pa.timestamp("us", "UTC")),
                    "known": pa.array(known, pa.timestamp("us", "UTC")),
                    "bytes": rng.integers(100, 100_000, per_day),
                    "recipient": pa.array([f"r{number}" for number in rng.integers(0, 300, per_day)]),
                    "label": pa.array(["ham"] * per_day),
                }
            )
        )
    return tables


def hive(folder: Path, day: int, table: pa.Table) -> Path:
    path = folder / f"day={START + timedelta(days=day):%Y-%m-%d}" / "part.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def flat(folder: Path, day: int, table: pa.Table) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / f"mails-{day:04d}.parquet")
    return folder / f"mails-{day:04d}.parquet"


Layout = Callable[[Path, int, pa.Table], Path]


def lay(world: SmallWorld, name: str, tables: Sequence[pa.Table], layout: Layout = hive) -> str:
    """Write the tables, a file each, into the folder ``name``; the sources that name it."""
    for day, table in enumerate(tables):
        layout(world.folder / name, day, table)
    return f"{{accounts: {{parquet: {{path: accounts}}}}, mails: {{parquet: {{path: {name}}}}}}}"


@pytest.fixture
def world(tmp_path: Path) -> SmallWorld:
    return make_small_world(tmp_path, n_accounts=60)


@pytest.mark.parametrize("layout", [hive, flat])
def test_an_appended_day_is_rolled_up_alone(world: SmallWorld, layout: Layout) -> None:
    days = mails_of(world, 22)
    walk = Walker(world, sources=lay(world, "appended", days[:20], layout), store="appended-store")
    walk(as_of="2026-01-21")
    for day in (20, 21):
        layout(world.folder / "appended", day, days[day])
        made = walk(as_of=f"2026-01-{day + 2}")
        assert (made[Stage.ROLLUP], made[Stage.FREEZE]) == (1, 0)
    at_once = Walker(world, sources=lay(world, "at-once", days, layout), store="at-once-store")
    at_once(as_of="2026-01-23")
    assert at_once.digest == walk.digest


def test_rewritten_removed_and_late_files_are_noticed_and_only_their_groups_are_redone(
    world: SmallWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchscore.sources.works.GROUP_FILES", 4)
    days = mails_of(world, 20)
    walk = Walker(world, sources=lay(world, "changing", days), store="changing-store", as_of="2026-01-21")
    assert walk()[Stage.ROLLUP] == 5
    rewritten = hive(world.folder / "changing", 6, days[6].slice(5))
    assert walk()[Stage.ROLLUP] == 1
    rewritten.unlink()
    assert walk()[Stage.ROLLUP] == 1
    hive(world.folder / "changing", 6, days[6])
    added = world.folder / "changing" / "day=2026-01-03" / "late.parquet"
    pq.write_table(days[19].slice(0, 3), added)
    assert walk()[Stage.ROLLUP] == 1, "the two new files go together; no group is touched"
    everything = [*days[:2], pa.concat_tables([days[2], days[19].slice(0, 3)]), *days[3:]]
    fresh = Walker(world, sources=lay(world, "fresh", everything), store="fresh-store", as_of="2026-01-21")
    fresh()
    assert fresh.digest == walk.digest


@pytest.mark.parametrize("kind", ["integer", "string"])
def test_one_mail_a_file_one_file_and_fifty_give_equal_bits(tmp_path: Path, kind: IdKind) -> None:
    world = make_small_world(tmp_path, n_accounts=40, kind=kind)
    everything = pa.concat_tables(mails_of(world, 15))
    shuffled = everything.take(pa.array(np.random.default_rng(5).permutation(len(everything))))
    pieces = {
        "single": [everything],
        "fifty": [shuffled.slice(low, 12) for low in range(0, len(everything), 12)],
        "tiny": [shuffled.slice(row, 1) for row in range(len(shuffled))],
    }
    assert [len(tables) for tables in pieces.values()] == [1, 50, 600]
    as_of = "{from: 2026-01-05, to: 2026-01-15, every: 5d}"
    digests = {}
    for name, tables in pieces.items():
        walk = Walker(world, sources=lay(world, name, tables, flat), store=f"{name}-store", as_of=as_of)
        assert walk()[Stage.ROLLUP] == math.ceil(len(tables) / 512)
        digests[name] = walk.digest
    assert len(set(digests.values())) == 1


def test_closed_months_and_days_become_one_file_each_with_equal_scores(
    world: SmallWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_days = 135  # January to the middle of May: March, April and what is known in May stay open as days
    days = mails_of(world, n_days, per_day=30)
    as_of = "{from: 2026-02-10, to: 2026-05-20, every: 9d}"
    single = Walker(world, sources=lay(world, "single", [pa.concat_tables(days)], flat), store="single-store", as_of=as_of)
    assert single()[Stage.MERGE] == 0
    monkeypatch.setattr("batchscore.sources.works.GROUP_FILES", 1)
    halves = [half for day in days for half in (day.slice(0, 11), day.slice(11))]
    daily = Walker(world, sources=lay(world, "daily", halves, flat), store="daily-store", as_of=as_of)
    made = daily()
    assert made[Stage.ROLLUP] == 2 * n_days
    assert made[Stage.MERGE] > 3
    n_months = 5
    assert max(daily.files_opened()) <= n_months + 62
    assert daily.digest == single.digest
    flat(world.folder / "daily", len(halves), mails_of(world, n_days + 1)[-1])
    again = daily()
    assert (again[Stage.ROLLUP], again[Stage.MERGE]) == (1, 0), "the new file; no month is merged again"
    flat(world.folder / "daily", 3, halves[3].slice(2))
    again = daily()
    assert (again[Stage.ROLLUP], again[Stage.MERGE]) == (1, 1), "the rewritten file, and the January it belongs to"


def test_a_rollup_that_is_merged_twice_is_the_same_file(world: SmallWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchscore.sources.works.GROUP_FILES", 1)
    monkeypatch.setattr("batchscore.attempt.inputs.MERGED_ROWS", 10)
    sources = lay(world, "mails-here", mails_of(world, 100, per_day=20))
    shas = []
    for store in ("one", "two"):
        walk = Walker(world, sources=sources, store=store, as_of="2026-04-10")
        walk()
        receipts = open_reader(world.folder / store).receipts(walk.row.run_id, Stage.MERGE)
        shas.append([output.sha256 for receipt in receipts for output in receipt.outputs])
        for receipt in open_reader(world.folder / store).receipts(walk.row.run_id, Stage.MERGE):
            (output,) = receipt.outputs
            ids = pq.read_table(world.folder / store / output.path)["account_id"].combine_chunks()
            assert pc.all(pc.less_equal(ids[:-1], ids[1:])).as_py()
    assert shas[0] == shas[1]
    assert shas[0]
