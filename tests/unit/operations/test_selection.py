"""Why an account was selected, in words: what floors of tiers change of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from batchscore.decide.memory import remember
from batchscore.decide.top import Question, decide_dates
from batchscore.operations.selection import AccountAt, selection_of
from batchscore.policy import Policy, Tier
from tests.contract.store.conftest import make_plan

AS_OF = datetime(2026, 7, 1, tzinfo=UTC)
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
