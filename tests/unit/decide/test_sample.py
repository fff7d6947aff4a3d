"""The sample and the floors of scores, against a slow reference: a sort of everybody."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.decide.best import at_least
from batchscore.decide.sample import draw
from batchscore.keys import hash64


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_sample_is_of_the_smallest_hashes_of_all_that_are_not_listed(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    n, n_drawn, n_listed = data.draw(st.integers(60, 500)), data.draw(st.integers(2, 40)), data.draw(st.integers(0, 60))
    scores = np.round(rng.beta(0.3, 2, n).astype(np.float32), 2)
    ids = rng.permutation(n).astype(np.uint64)
    rows = pa.table({"account_id": ids, "score": scores, "margin": scores})
    best = rows.sort_by([("score", "descending"), ("account_id", "ascending")])
    listed, n_flagged = best.slice(0, n_listed), data.draw(st.integers(0, n_listed))
    seed = np.uint64(data.draw(st.integers(0, 2**64 - 1)))
    size = data.draw(st.integers(1, n))
    parts = [rows.slice(start, size) for start in range(0, n, size)]
    found = draw(parts, listed.slice(0, n_flagged), listed.slice(n_flagged), n_drawn, seed)
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


@given(st.lists(st.floats(width=32), min_size=1).filter(lambda scores: not np.isnan(scores[0])), st.floats(allow_nan=False))
def test_scores_reach_a_floor_as_float64_compares_them(scores: list[float], floor: float) -> None:
    for kind in (np.float32, np.float64):
        for least in (floor, scores[0], float(np.nextafter(scores[0], np.inf))):
            assert at_least(np.array(scores, kind), least).tolist() == [score >= least for score in scores]
