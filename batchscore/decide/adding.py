"""Whose flag that stands a run may add evidence to, and what is new of it. Pure.

An account whose flag stands is withheld and uses up nothing; but a run that would have selected it, had no flag stood, has
something to say of it. What an older as-of says is no news, and what gave the same margin is none either: those two are left
out at once, before anybody explains them. Whether the rest moved far enough (`evidence.says_more`) is the release's to say.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.decide.memory import Judged, Memory, Withheld
from batchscore.decide.tiers import Rules
from batchscore.decide.walk import Standing, walk
from batchscore.keys import ACCOUNT_ID, positions
from batchscore.policy import Policy, n_sampled


def may_add(candidates: pa.Table, judged: Judged, rules: Rules, memory: Memory, as_of: datetime) -> npt.NDArray[np.bool_]:
    """Of each candidate (account_id, margin): whether a flag of it stands to which it may add, bool (n,)."""
    newest = memory.newest_evidence
    ids = candidates[ACCOUNT_ID].combine_chunks()
    found = np.zeros(len(ids), np.bool_)
    if not len(newest):
        return found
    at = positions(ids, newest[ACCOUNT_ID].combine_chunks())
    places = np.flatnonzero(at >= 0)
    there = newest.take(pa.array(at[places]))
    older = pc.greater(there["as_of"], pa.scalar(as_of, there.schema.field("as_of").type)).to_numpy()
    margins = candidates["margin"].take(pa.array(places)).to_numpy().astype(np.float32)
    moved = margins != there["margin"].to_numpy().astype(np.float32)
    asks = rules.second[places] & ~pc.fill_null(there["second_reviewer"], fill_value=False).to_numpy()
    is_open = (judged.kinds[places] == Withheld.OPEN) & ~judged.suppressed[places]
    found[places] = is_open & ~older & (moved | asks)
    return found


def selected_anyway(
    scores: npt.NDArray[np.float64], judged: Judged, rules: Rules, policy: Policy, *, cap: int
) -> tuple[npt.NDArray[np.bool_], bool]:
    """Whom the policy would select, had no flag stood, bool (n,); and whether more candidates would change nothing.

    ``scores``: falling. Flags that stand take places of the whole budget here, as they did when they were new.
    """
    withheld = judged.is_withheld & ((judged.kinds != Withheld.OPEN) | judged.suppressed)
    budget = None if policy.budget is None else policy.budget - n_sampled(policy.sample, policy.budget)
    found = walk(scores, rules, withheld[: len(scores)], budget=budget, cap=cap, reserve=0)
    return found.standings == Standing.FLAG, found.is_over
