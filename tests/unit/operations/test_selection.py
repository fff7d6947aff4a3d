"""Why an account was selected, in words: what floors of tiers change of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from batchscore.decide.memory import remember
from batchscore.decide.top import Question, decide_dates
from batchscore.operations.selection import AccountAt, selection_of
from batchscore.policy import Policy, Tier
from batchscore.ports import Suppression
from tests.contract.store.conftest import make_plan

AS_OF = datetime(2026, 7, 1, tzinfo=UTC)
DAY = timedelta(days=1)
IDS = pa.array([1, 2, 3, 4], pa.uint64())
SCORES = pa.table({"account_id": IDS, "score": pa.array([0.9, 0.8, 0.7, 0.6], pa.float32()), "margin": pa.nulls(4, pa.float32())})


@pytest.mark.parametrize(("account", "because", "place"), [(1, "selected", 1), (2, "policy", 2), (4, "selected", 4)])
def test_a_floor_is_told_of_whom_it_brings_in_or_leaves_out(account: int, because: str, place: int, tmp_path: Path) -> None:
    policy = Policy(threshold=0.5, budget=2, tiers=(Tier(by="country", values=("ch",), floor=1),))
    memory = remember([], [], pa.uint64())
    groups = pa.table({"account_id": IDS, "country": ["de", "de", "de", "ch"]})
    asked = Question(policy=policy, memory=memory, scores=lambda _: [SCORES], groups=lambda _, ids: groups)
    [(_, decided)] = decide_dates(asked, [AS_OF], release="none")
    spec = make_plan(tmp_path).spec.model_copy(update={"policy": policy, "release": "none"})
    own = AccountAt(spec, pa.scalar(account, pa.uint64()), AS_OF, float(SCORES["score"][account - 1].as_py()))
    found = selection_of(own, [SCORES], memory, decided.table)
    assert (found.because, found.place) == (because, place)
    assert f"is number {place} of the 4 that reach the threshold and could be flagged" in found.said
    assert "the budget takes 2, but floors keep 1 of its places for the best of their tiers" in found.said


def test_each_is_told_what_the_policy_made_of_it(tmp_path: Path) -> None:
    """Of nine: one is suppressed, though drawn; two have places of the budget, one is drawn, and one is kept in reserve."""
    ids = pa.array(range(1, 10), pa.uint64())
    scores = pa.table({"account_id": ids, "score": pa.array([0.95, 0.9, 0.8, 0.75, 0.7, 0.4, 0.3, 0.2, 0.1], pa.float32())})
    scores = scores.append_column("margin", scores["score"])
    policy = Policy(threshold=0.5, budget=4, sample=0.5, reserve=2)
    kept_out = Suppression(scope="account", key="1", owner="Ada", why="our own list", begins_at=AS_OF - DAY, until=AS_OF + DAY)
    memory = remember([], [kept_out], pa.uint64())
    asked = Question(policy=policy, memory=memory, scores=lambda _: [scores], seed="plan")
    [(_, decided)] = decide_dates(asked, [AS_OF], release="none")
    spec = make_plan(tmp_path).spec.model_copy(update={"policy": policy, "release": "none"})
    found = {
        account: selection_of(AccountAt(spec, pa.scalar(account, pa.uint64()), AS_OF, score), [scores], memory, decided.table)
        for account, score in zip(ids.to_pylist(), scores["score"].to_pylist(), strict=True)
    }
    assert {account: one.because for account, one in found.items()} == {
        1: "withheld", 2: "selected", 3: "selected", 4: "drawn", 5: "reserve", **dict.fromkeys(range(6, 10), "below_threshold"),
    }  # fmt: skip
    assert found[1].said.startswith("it would be flagged, and was withheld: ")
    assert "Ada: our own list" in found[1].said
    assert "drawn at random" in found[4].said
    assert "the last one taken has 0.8" in found[5].said, "who was drawn was not taken for its score"
    assert f"it is kept in reserve, at rank {found[5].rank}" in found[5].said
    assert [account for account, one in found.items() if one.selected] == [2, 3, 4]
