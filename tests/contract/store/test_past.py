"""What a queue remembers, page by page and question by question, is what one statement says of it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from batchscore.errors import Refused
from batchscore.flag import DECIDED, AccountId, Disposition, Reason
from batchscore.store import Ledger, ReviewDesk, open_desk, past
from tests.contract.store.at_the_desk import HOUR, held, says
from tests.contract.store.conftest import AS_OF, OpenStore, make_flag, make_plan
from tests.contract.store.past_by_one_statement import past_by_one_statement
from tests.past_flags import past_flags

DAY = timedelta(days=1)
ACCOUNTS = 9


def years_of_reviewing(store: Ledger, desk: ReviewDesk, folder: Path, ids: list[AccountId]) -> None:
    """Runs that flag, add evidence and are undone; claims and decisions between them, of one person and of two."""
    chance = np.random.default_rng(3)
    reasons = make_flag(ids[0], run_id="").reasons
    for night in range(10):
        run, _ = store.open(make_plan(folder, name=f"night{night}"), owner="me")
        more = (Reason(code=f"c{night}", sentence="more", contribution=0.1), Reason(code="less", sentence="", contribution=-0.1))
        flags = [
            make_flag(one, run_id=run.run_id, rank=place + 1).model_copy(
                update={
                    "as_of": AS_OF + int(chance.integers(0, 4)) * HOUR + night * DAY,
                    "score": float(chance.uniform(0.1, 0.9)),
                    "reasons": (*reasons, *more),
                    "second_reviewer": bool(chance.random() < 0.2),
                }
            )
            for place, one in enumerate(ids)
            if chance.random() < 0.7
        ]
        store.release(run, iter(flags))
        store.close(run, "finished")
        if night % 5 == 4:
            store.undo(run.run_id, by="cid", why="wrong model")
        if night % 3 == 1:
            desk.claim("abuse", by="bob", for_=HOUR, n=2)
        for one in ids:
            by = "bob" if chance.random() < 0.5 else "ann"
            disposition = list(Disposition)[int(chance.integers(0, 3))]
            try:
                if chance.random() < 0.3:
                    desk.decide([says(one, disposition, by=by, evidence=held(folder, one).version)])
            except (Refused, IndexError):
                continue  # not before the reviewers, claimed by the other, or the first of two


@pytest.mark.parametrize("kind", ["integer", "string"])
def test_pages_of_three_questions_say_what_one_statement_says(
    kind: str, open_again: OpenStore, store_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_again("string" if kind == "string" else "integer")
    ids: list[AccountId] = [f"k{one:02d}" if kind == "string" else one for one in range(1, ACCOUNTS + 1)]
    years_of_reviewing(store, open_desk(store_folder), store_folder, ids)
    _, asking = store.open(make_plan(store_folder, name="asking"), owner="me")
    first = next(row for row in store.reader().runs() if row.name == "night3")
    for row in (asking, first):
        expected = past_by_one_statement(store_folder, "abuse", row)
        for page in (1, 2, 5, len(expected), 10_000):
            monkeypatch.setattr(past, "PAGE", page)
            assert list(past_flags(store.reader(), "abuse", row)) == expected
        assert len({one.account_id for one in expected}) < len(expected), "of some accounts several flags are remembered"
        assert any(one.state in DECIDED and len(one.reason_codes) > 1 for one in expected)
        assert {one.closed_at is None for one in expected} == {True, False}
    assert list(past_flags(store.reader(), "other", asking)) == []
