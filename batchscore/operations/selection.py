"""What of a policy selected an account at an as-of, or did not: from the scores, the frozen memory and the frozen decision."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from batchscore.decide.memory import Memory, Moment, Withheld
from batchscore.decide.table import EVIDENCE, FLAG, RESERVE, flags_in
from batchscore.keys import ACCOUNT_ID, MOMENT
from batchscore.report.explanation import Because, Selection
from batchscore.spec import RunSpec

_KNOWN: Final = frozenset({ACCOUNT_ID, "as_of", "rank", "score", "margin", "release"})


@dataclass(frozen=True, slots=True)
class AccountAt:
    """Of whom it is asked: ``own``, an id as Arrow holds it, at an as-of of ``spec``; ``score`` None: it has none."""

    spec: RunSpec
    own: pa.Scalar
    as_of: datetime
    score: float | None

    @property
    def released(self) -> bool:
        """Whether the as-of went to the reviewers: then decide saw real flags only, as they stood."""
        return self.spec.release == "latest" and self.as_of == self.spec.as_ofs()[-1]


def selection_of(asked: AccountAt, scores: Iterable[pa.Table], memory: pa.Table, decided: pa.Table) -> Selection:
    """Why the account was, or was not, selected.

    Args:
        asked: The account.
        scores: All of the as-of (account_id, score), each account once.
        memory: As `decide.memory.remember` makes it, and the run froze it.
        decided: The run's decision, of all as-ofs.
    """
    policy, moment = asked.spec.policy, pa.scalar(asked.as_of, MOMENT)
    open_flags = Memory(memory, Moment(as_of=asked.as_of, released=asked.released)).open_accounts
    flags = flags_in(decided)
    earlier = flags.filter(pc.less(flags["as_of"], moment))[ACCOUNT_ID].combine_chunks()
    blocked = open_flags if asked.released else pc.unique(pa.concat_arrays([open_flags, earlier]))
    place = _placed(asked, scores, blocked)
    here = decided.filter(pc.equal(decided["as_of"], moment))
    mine = next(iter(here.filter(pc.equal(here[ACCOUNT_ID], asked.own)).to_pylist()), None)
    standing, withheld = (mine["standing"], mine["withheld"]) if mine else (None, None)
    because: Because = "selected" if standing == FLAG else _because(asked, place, open_flags, blocked)
    if mine and mine["stratum"] is not None:
        because = "drawn"
    elif standing == RESERVE:
        because = "reserve"
    elif withheld not in {None, Withheld.OPEN}:
        because = "withheld"
    taken = flags_in(here)
    last = pc.min(taken.filter(pc.is_null(taken["stratum"]))["score"]).as_py()  # of those taken for their scores
    found = Selection(
        selected=standing == FLAG,
        because=because,
        said="",
        rank=mine["rank"] if mine else None,
        place=None if asked.score is None else place.n_better + 1,
        threshold=policy.threshold,
        budget=policy.budget,
        n_scored=place.n_scored,
        n_reaching=place.n_reaching,
        n_blocked=len(blocked),
        n_selected=len(taken),
        last_score=None if last is None else float(last),
        flag_open_since=_open_since(memory, asked.own) if because == "open_flag" else None,
        released=bool(mine and mine.get("release")),
        more={name: value for name, value in (mine or {}).items() if name not in _KNOWN and value is not None},
    )
    n_kept = sum(tier.floor or 0 for tier in policy.tiers)
    return found.model_copy(update={"said": _said(found, asked.score, n_kept) + (_ADDS if standing == EVIDENCE else "")})


_ADDS: Final = "; where it moved far enough, this run may add to that flag, as evidence"


@dataclass(frozen=True, slots=True)
class _Place:
    """Counts over all scores of an as-of."""

    n_scored: int = 0
    n_reaching: int = 0
    n_better: int = 0


def _placed(asked: AccountAt, scores: Iterable[pa.Table], blocked: pa.Array) -> _Place:
    """Over the scores, a table at a time; the order is decide's: the score, then the least id."""
    place = _Place()
    threshold = asked.spec.policy.threshold
    floor = pa.scalar(float("-inf") if threshold is None else threshold, pa.float64())
    own_score = pa.scalar(float("nan") if asked.score is None else asked.score, pa.float64())  # nothing is above NaN
    for table in scores:
        values = table["score"].cast(pa.float64())
        free = pc.invert(pc.is_in(table[ACCOUNT_ID], value_set=blocked))
        tied = pc.and_(pc.equal(values, own_score), pc.less(table[ACCOUNT_ID], asked.own))
        better = pc.and_(free, pc.or_(pc.greater(values, own_score), tied))
        reaching = pc.and_(free, pc.greater_equal(values, floor))
        place = _Place(place.n_scored + len(table), place.n_reaching + _n(reaching), place.n_better + _n(better))
    return place


def _n(mask: Any) -> int:
    return int(pc.sum(mask).as_py() or 0)


def _because(asked: AccountAt, place: _Place, open_flags: pa.Array, blocked: pa.Array) -> Because:
    """The first thing that stood in the way, in the order in which decide asks."""
    policy = asked.spec.policy
    if asked.score is None:
        return "not_scored"
    if policy.threshold is not None and asked.score < policy.threshold:
        return "below_threshold"
    if _holds(open_flags, asked.own):
        return "open_flag"
    if _holds(blocked, asked.own):
        return "flagged_earlier"
    return "beyond_budget" if policy.budget is not None and place.n_better >= policy.budget else "policy"


def _holds(ids: pa.Array, own: pa.Scalar) -> bool:
    return bool(pc.any(pc.equal(ids, own)).as_py())


def _open_since(memory: pa.Table, own: pa.Scalar) -> datetime | None:
    since: datetime | None = pc.max(memory.filter(pc.equal(memory[ACCOUNT_ID], own))["opened_at"]).as_py()
    return since


def _said(found: Selection, score: float | None, n_kept: int) -> str:
    """One sentence. ``n_kept``: places of the budget that floors of tiers keep."""
    among = f"{found.n_reaching:,} that reach the threshold" if found.threshold is not None else f"{found.n_reaching:,}"
    number = f"its score is number {found.place or 0:,} of the {among} and could be flagged"
    floors = f"floors keep {n_kept:,} of its places for the best of their tiers"
    takes = "" if found.budget is None else f", and the budget takes {found.budget:,}" + (f", but {floors}" if n_kept else "")
    last = "" if found.last_score is None else f"; the last one taken has {found.last_score:.6g}"
    sentences: dict[Because, str] = {
        "selected": f"{number}{takes}",
        "drawn": "it was drawn at random among accounts that the policy leaves, so that what is missed can be counted",
        "below_threshold": f"its score {score or 0:.6g} is below the threshold {found.threshold or 0:g}",
        "beyond_budget": f"{number}{takes}{last}",
        "open_flag": f"a flag of it was open already, since {found.flag_open_since:%Y-%m-%d %H:%M} UTC: one at a time"
        if found.flag_open_since
        else "a flag of it was open already: one at a time",
        "flagged_earlier": "an earlier as-of of the same run selected it, and a simulated flag counts as open",
        "reserve": f"{number}{takes}{last}: it is kept in reserve, at rank {found.rank}",
        "withheld": f"it would be flagged, and was withheld: {found.more.get('why', '')}",
        "not_scored": "it has no score at this as-of",
        "policy": f"{number}{takes}{last}"
        if n_kept
        else "the policy left it out, by a rule beyond threshold, budget and open flags",
    }
    return sentences[found.because]
