"""Two bundles, or two runs, at equal budget: who is new, dropped or moved, and why; exact against a sort of everything."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchscore
from batchscore.errors import Refused
from batchscore.flag import FlagState
from batchscore.operations.compare import ComparisonLimits, compare_bundle, compare_runs
from batchscore.plan import Stage
from batchscore.ports import HeldFlag, PastColumns, RunRow, StoreReader
from batchscore.report.comparison import Comparison
from batchscore.store import open_reader
from tests.commands import call
from tests.past_flags import columns, past_flag
from tests.small_world import SmallWorld, make_small_world, pack

BUDGET = 12
AS_OFS = [datetime(2026, 1, 8, tzinfo=UTC), datetime(2026, 1, 15, tzinfo=UTC)]


@pytest.fixture(scope="module", params=["integer", "string"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SmallWorld:
    """A run whose candidate is a shadow, and one that the candidate flags in, of one date alone."""
    made = make_small_world(tmp_path_factory.mktemp(request.param), n_accounts=200, kind=request.param)
    pack(made.folder, np.random.default_rng(2), name="candidate", place="candidate", quiet=True)
    shadowed = made.spec(
        bundles="[bundle, {path: candidate, shadow: true}]", policy=f"{{queue: abuse, budget: {BUDGET}}}", release="none"
    )
    batchscore.run(shadowed, inline=True)
    batchscore.run(
        made.spec(name="other", bundles="[candidate]", as_of="2026-01-15", policy="{queue: abuse, budget: 5}"), inline=True
    )
    return made


@pytest.fixture
def row(world: SmallWorld) -> RunRow:
    found = open_reader(world.store).newest_finished("small")
    assert found is not None
    return found


def scores(world: SmallWorld, row: RunRow, stage: Stage) -> pd.DataFrame:
    """All scores of a stage by account and as-of."""
    paths = [
        world.store / out.path
        for receipt in open_reader(world.store).receipts(row.run_id, stage)
        for out in receipt.outputs
        if out.role == "scores"
    ]
    table = pa.concat_tables(pq.read_table(path).replace_schema_metadata(None) for path in paths)
    frame: pd.DataFrame = table.to_pandas()
    return frame


def best(frame: pd.DataFrame, as_of: datetime, blocked: set[Any]) -> list[Any]:
    """The best accounts of an as-of, by a sort of everything."""
    here = frame[(frame["as_of"] == as_of) & ~frame["account_id"].isin(blocked)]
    by_bytes = here["account_id"].map(lambda one: one.encode() if isinstance(one, str) else one)
    ranked = here.assign(order=by_bytes).sort_values(["score", "order"], ascending=[False, True])
    found: list[Any] = ranked["account_id"].tolist()[:BUDGET]
    return found


def test_it_is_what_a_sort_of_everything_says(world: SmallWorld, row: RunRow) -> None:
    found = batchscore.compare(row.run_id, bundle="candidate", store=world.store)
    sides = scores(world, row, Stage.SCORE), scores(world, row, Stage.SHADOW)
    blocked: tuple[set[Any], set[Any]] = (set(), set())
    seen: dict[tuple[datetime, str], dict[Any, int]] = {}
    for pair, as_of in zip(found.dates, AS_OFS, strict=True):
        a, b = (best(frame, as_of, held) for frame, held in zip(sides, blocked, strict=True))
        moves = [abs(a.index(who) - b.index(who)) for who in a if who in b and a.index(who) != b.index(who)]
        assert (pair.as_of_a, pair.as_of_b, pair.budget, pair.n_a, pair.n_b) == (as_of, as_of, BUDGET, BUDGET, BUDGET)
        assert (pair.n_same, pair.n_moved) == (len(set(a) & set(b)), len(moves))
        assert pair.n_new == pair.n_dropped == BUDGET - pair.n_same
        seen[as_of, "new"] = {who: b.index(who) + 1 for who in b if who not in a}
        seen[as_of, "dropped"] = {who: a.index(who) + 1 for who in a if who not in b}
        blocked[0].update(a)
        blocked[1].update(b)
    assert sum(map(len, seen.values())) > 20
    assert len(found.sample) == 20
    for one in found.sample:
        assert seen[one.as_of, one.kind][one.account_id] == one.rank
        for frame, score, margin in zip(sides, (one.score_a, one.score_b), (one.margin_a, one.margin_b), strict=True):
            held = frame[(frame["as_of"] == one.as_of) & (frame["account_id"] == one.account_id)].iloc[0]
            assert (float(held["score"]), float(held["margin"])) == (score, margin), "made again, it has the same bits"


def test_the_reasons_add_up_to_the_margins(world: SmallWorld, row: RunRow) -> None:
    found = compare_bundle(open_reader(world.store), row, "candidate", ComparisonLimits(n_sample=500))
    for why in found.why:
        of_kind = [one for one in found.sample if one.kind == why.kind]
        assert why.n == len(of_kind) > 0
        for base, side in ((why.base_a, "a"), (why.base_b, "b")):
            assert base is not None
            margins = [getattr(one, f"margin_{side}") for one in of_kind]
            gave = sum(getattr(pair, side) for pair in why.codes)
            assert base + gave == pytest.approx(sum(margins) / len(margins), abs=1e-4)
        differences = [abs(pair.difference) for pair in why.codes]
        assert differences == sorted(differences, reverse=True)
    new = next(why for why in found.why if why.kind == "new")
    assert new.codes[0].code in {"quiet", "mails_7d", "recipients"}


def test_a_bundle_by_its_path_is_what_its_shadow_was_and_nothing_is_left(world: SmallWorld, row: RunRow) -> None:
    before = sorted(world.store.rglob("*"))
    named = batchscore.compare(row.run_id, bundle="candidate", store=world.store)
    tried = batchscore.compare(row.run_id, bundle=world.folder / "candidate", store=world.store)
    assert tried.b.made_now
    assert tried.model_copy(update={"b": named.b}) == named
    assert sorted(world.store.rglob("*")) == before


def test_a_run_beside_itself_differs_in_nothing(world: SmallWorld, row: RunRow) -> None:
    found = batchscore.compare(row.run_id, row.run_id, store=world.store)
    assert all((pair.n_new, pair.n_dropped, pair.n_moved) == (0, 0, 0) for pair in found.dates)
    assert (found.sample, [why.n for why in found.why]) == ((), [0, 0])
    again = batchscore.compare(row.run_id, row.run_id, store=world.store, budget=BUDGET)
    assert again.dates == found.dates, "what the run decided is what deciding again at its budget selects"


def test_two_runs_are_compared_at_the_as_ofs_of_both_with_the_memory_of_the_first(world: SmallWorld, row: RunRow) -> None:
    reader = open_reader(world.store)
    other = reader.newest_finished("other")
    assert other is not None
    found = compare_runs(reader, row, other, ComparisonLimits())
    assert [pair.as_of_a for pair in found.dates] == AS_OFS[1:]
    assert found.dates[0].n_b == BUDGET, "equal budget: more than the other run itself selected"
    assert (found.b.bundle, found.memory_of) == ("candidate", row.run_id)
    backwards = compare_runs(reader, other, row, ComparisonLimits())
    assert backwards.dates[0].n_a == backwards.dates[0].n_b == 5


class Reviewed:
    """A reader of a store in which people have decided: the best three of run A, on its flags; one new in B, earlier."""

    def __init__(self, reader: StoreReader, row: RunRow, own: dict[Any, FlagState], past: dict[Any, FlagState]) -> None:
        self._reader, self._row, self._own, self._past = reader, row, own, past

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def flags(self, run_id: str) -> Iterator[HeldFlag]:
        flag = self._reader.queue(None, limit=1)[0].flag
        for account, state in self._own.items() if run_id == self._row.run_id else ():
            yield HeldFlag(flag=flag.model_copy(update={"account_id": account}), state=state, is_open=False, opened_at=flag.as_of)

    def past_columns(self, queue: str, *, but_not_of: RunRow) -> Iterator[PastColumns]:
        assert (queue, but_not_of) == ("abuse", self._row)
        for account, state in self._past.items():
            for days, became in ((1, FlagState.INCONCLUSIVE), (2, state)):
                decided = {"state": became, "decided_at": AS_OFS[0] + timedelta(days=days)}
                yield columns(past_flag(account, AS_OFS[0], AS_OFS[1], **decided))


def test_precision_is_of_what_people_decided(world: SmallWorld, row: RunRow) -> None:
    reader = open_reader(world.store)
    sides = scores(world, row, Stage.SCORE), scores(world, row, Stage.SHADOW)
    a, b = (best(frame, AS_OFS[0], set()) for frame in sides)
    only_b = next(who for who in b if who not in a)
    own = dict(zip(a, (FlagState.CONFIRMED, FlagState.CONFIRMED, FlagState.CLEARED, FlagState.OPEN), strict=False))
    reviewed: Any = Reviewed(reader, row, own, {only_b: FlagState.CLEARED, a[0]: FlagState.CLEARED})
    found = compare_bundle(reviewed, row, "candidate", ComparisonLimits())
    mine, theirs = found.precision_a, found.precision_b
    assert (mine.n_decided, mine.n_confirmed) == (3, 2), "its own flag speaks first"
    assert mine.precision == pytest.approx(2 / 3)
    decided = sum(who in b for who in a[:3]) + 1
    assert (theirs.n_decided, theirs.n_confirmed) == (decided, sum(who in b for who in a[:2])), "the newest decision counts"
    assert mine.low is not None
    assert mine.high is not None
    assert 0 < mine.low < 2 / 3 < mine.high < 1


def test_of_runs_that_are_unlike_a_comparison_says_in_what(tmp_path: Path) -> None:
    world = make_small_world(tmp_path)
    nobody = "{queue: abuse, threshold: 1.0}"
    early = batchscore.run(world.spec(as_of="2026-01-08", release="none", policy=nobody), inline=True)
    features = world.folder / "features.yaml"
    features.write_text(features.read_text().replace("version: 1", "version: 2").replace("window: 7d}", "window: 6d}"))
    pack(world.folder, np.random.default_rng(2), name="newer", place="newer")
    same_day = batchscore.run(world.spec(as_of="2026-01-08", release="none", bundles="[newer]"), inline=True)
    later = batchscore.run(world.spec(as_of="2026-01-12", release="none", bundles="[newer]"), inline=True)
    notes = batchscore.compare(early.run_id, same_day.run_id, store=world.store).notes
    assert [note.partition(",")[0] for note in notes] == [
        "the runs have different feature sets", "of 1 of 1 as-ofs run A selected nobody",
    ]  # fmt: skip
    (unlike, _) = batchscore.compare(early.run_id, later.run_id, store=world.store).notes
    assert unlike.startswith("the runs have no as-of in common")


def test_what_cannot_be_compared_is_refused(world: SmallWorld, row: RunRow, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one thing"):
        batchscore.compare(row.run_id, store=world.store)
    with pytest.raises(Refused) as missing:
        batchscore.compare(row.run_id, bundle="nowhere", store=world.store)
    assert missing.value.reason in {"bundle_missing", "file_missing", "bundle_invalid"}
    other = make_small_world(tmp_path / "other", n_accounts=20)
    features = other.folder / "features.yaml"
    features.write_text(features.read_text().replace("window: 7d}", "window: 6d}"))
    pack(other.folder, np.random.default_rng(2), name="alien", place="alien")
    with pytest.raises(Refused, match="another feature set"):
        batchscore.compare(row.run_id, bundle=other.folder / "alien", store=world.store)


def test_the_command_shows_accounts_and_its_page_does_not(world: SmallWorld, row: RunRow, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    said = call("compare", row.run_id, "--bundle", "candidate", "--store", world.store, "--html", page)
    assert said.code == 0
    as_json = call("compare", row.run_id, "--bundle", "candidate", "--store", world.store, "--json")
    found = Comparison.model_validate_json(as_json.stdout)
    drawn = page.read_text()
    for one in found.sample:
        assert str(one.account_id) not in drawn
    assert "new in B" in said.stdout
    if world.kind == "integer":
        assert all(str(one.account_id) in said.stdout for one in found.sample)
    assert "http" not in drawn.replace('http-equiv="', "")
