"""The sample and the floors of scores, against a slow reference: a sort of everybody."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.decide import best, sample
from batchscore.decide.best import at_least, best_of
from batchscore.decide.sample import Lots, draw
from batchscore.keys import hash64


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_sample_is_of_the_smallest_hashes_of_all_that_are_not_listed(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    n_drawn = data.draw(st.integers(2, 4) | st.integers(2, 40))  # of few, strata are joined until each has a draw
    n, n_listed = data.draw(st.integers(60, 500)), data.draw(st.integers(0, 60))
    scores = np.round(rng.beta(0.3, 2, n).astype(np.float32), 2)
    ids = rng.permutation(n).astype(np.uint64)
    rows = pa.table({"account_id": ids, "score": scores, "margin": scores})
    best = rows.sort_by([("score", "descending"), ("account_id", "ascending")])
    listed, n_flagged = best.slice(0, n_listed), data.draw(st.integers(0, n_listed))
    seed = np.uint64(data.draw(st.integers(0, 2**64 - 1)))
    size = data.draw(st.integers(1, n))
    parts = [rows.slice(start, size) for start in range(0, n, size)]
    lots, is_listed = Lots(n_drawn, seed), set(listed["account_id"].to_pylist())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "_MOST_WAITING", data.draw(st.sampled_from([50, 4_096])))
        for part in parts:
            lots.offer(part, np.flatnonzero([account in is_listed for account in part["account_id"].to_pylist()]))
    found = draw(lots, listed.slice(n_flagged))
    expected: list[tuple[int, str]] = []
    for stratum in found.strata:
        if stratum.name == "reserve":
            among = listed.slice(n_flagged)["account_id"].to_pylist()
        else:
            low, high = map(float, stratum.name.split("–"))
            wide, top = best["score"].to_numpy().astype(np.float64), np.inf if high == 1 else high
            inside = np.flatnonzero((wide >= low) & (wide < top))
            among = best["account_id"].take(inside[inside >= n_listed]).to_pylist()
        assert stratum.n == len(among)
        hashes = dict(zip(among, hash64(pa.array(among, pa.uint64()), seed).tolist(), strict=True))
        expected += [(account, stratum.name) for account in sorted(among, key=lambda one: hashes[one])[: stratum.n_drawn]]
    table_of = zip(found.table["account_id"].to_pylist(), found.table["stratum"].to_pylist(), strict=True)
    assert list(table_of) == sorted(expected)
    assert len(expected) == min(n_drawn, n - n_flagged)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), as_text=st.booleans(), waiting=st.sampled_from([1, 3, 65_536]))
def test_every_row_is_among_the_best_or_told_of_once(data: st.DataObject, *, as_text: bool, waiting: int) -> None:
    levels = st.sampled_from([0.0, 0.25, 0.5, 1.0, float("nan")])
    scores = data.draw(st.lists(levels, max_size=60))
    ids = data.draw(st.permutations([f"{n:x}" if as_text else n for n in range(len(scores))]))
    kind = pa.string() if as_text else pa.uint64()
    rows = pa.table({"account_id": pa.array(ids, kind), "score": pa.array(scores, pa.float32()), "margin": scores})
    most, floor = data.draw(st.none() | st.integers(1, 70)), data.draw(st.sampled_from([-np.inf, 0.25, 0.75]))
    size = data.draw(st.integers(1, 60))
    told: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(best, "MIN_WAITING", waiting)
        found = best_of(
            (rows.slice(start, size) for start in range(0, len(rows), size)),
            most,
            floor,
            kind,
            lambda table, but_not: told.extend(np.delete(np.array(table["account_id"].to_pylist(), object), but_not)),
        )
    above = [(score, account) for score, account in zip(scores, ids, strict=True) if score >= floor]
    expected = [account for _, account in sorted(above, key=lambda one: (-one[0], one[1]))][:most]
    assert found.table["account_id"].to_pylist() == expected
    assert (found.n_above, found.is_all) == (len(above), len(above) == len(expected))
    assert sorted(told) == sorted(set(ids) - set(expected))


@given(st.lists(st.floats(width=32), min_size=1).filter(lambda scores: not np.isnan(scores[0])), st.floats(allow_nan=False))
def test_scores_reach_a_floor_as_float64_compares_them(scores: list[float], floor: float) -> None:
    for kind in (np.float32, np.float64):
        for least in (floor, scores[0], float(np.nextafter(scores[0], np.inf))):
            assert at_least(np.array(scores, kind), least).tolist() == [score >= least for score in scores]
