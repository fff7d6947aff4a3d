"""Compares what two runs, or two bundles on one run's frozen input, would put before reviewers at equal budget. Reads only.

Both sides select as many accounts of each as-of, with the same memory (that of A) and without a threshold, since a score of one
bundle is not comparable with a threshold made for another. What A selected of its own is what its run decided, when no other
budget is asked for. Scores are read a table at a time; memory follows the budget, not the number of accounts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.decide.memory import Moment
from batchscore.decide.table import flags_in
from batchscore.decide.top import Question, decide
from batchscore.errors import Refused
from batchscore.files import verified
from batchscore.flag import DECIDED, AccountId, FlagState
from batchscore.keys import ACCOUNT_ID, ID_TYPES, MOMENT, hash64
from batchscore.layout import Definitions, decided_rows
from batchscore.models.loading import load_scorer
from batchscore.operations.compared_side import ComparedSide, committed_side, tried_side
from batchscore.operations.contributions import codes_of
from batchscore.operations.for_a_person import told_to_a_person
from batchscore.policy import Policy
from batchscore.ports import RunRow, StoreReader
from batchscore.report.comparison import (
    MAX_CODES,
    Comparison,
    DatePair,
    Disagreement,
    Precision,
    Why,
    averages,
    code_pairs,
    date_pair,
)

MAX_EXPLAINED: Final = 500  # of each kind: enough for averages, and each may cost a row group of its own
BASE: Final = ""  # what a bundle gives everybody, among the codes of a row

Kind = Literal["new", "dropped"]
Ranks = dict[AccountId, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonLimits:
    """``budget``: accounts each side may select at an as-of; None: as many as run A did. ``n_sample``: disagreements shown."""

    budget: int | None = None
    n_sample: int = 20


def compare_runs(reader: StoreReader, row_a: RunRow, row_b: RunRow, asked: ComparisonLimits) -> Comparison:
    """Run B against run A, each by the bundle that flags there.

    Raises:
        Refused: ``run_unfinished``; ``id_kind``: their account ids are of two kinds.
        Held: a file of a run is gone or damaged.
    """
    kinds = {Definitions.of(row.plan).feature_set.account_id for row in (row_a, row_b)}
    if len(kinds) > 1:
        what = f"account ids are {' and '.join(sorted(kinds))}"
        raise Refused("id_kind", what, where=f"{row_a.run_id}, {row_b.run_id}", remedy="compare runs of one kind of ids")
    with told_to_a_person():
        return _compare(reader, committed_side(row_a, reader), committed_side(row_b, reader), asked)


def compare_bundle(reader: StoreReader, row: RunRow, bundle: str, asked: ComparisonLimits) -> Comparison:
    """Another bundle on the frozen input of a run, against the one that flags there.

    ``bundle``: the name of one of the run's shadows, whose scores are taken as they stand; or the path of any bundle made for the
    run's feature set, which is scored now, in this process.

    Raises:
        Refused: ``run_unfinished``; what reading a bundle refuses, or ``feature_contract``.
        Held: a file of the run is gone or damaged.
    """
    names = row.plan.bundle_names()
    shadow = next((one for one in row.plan.bundles[1:] if names[one.sha256] == bundle), None)
    a = committed_side(row, reader)
    with told_to_a_person(), ExitStack() as stack:
        b = committed_side(row, reader, shadow) if shadow else stack.enter_context(tried_side(row, reader, Path(bundle)))
        return _compare(reader, a, b, asked)


@dataclass(frozen=True, slots=True)
class _Selected:
    """What each side selects at a pair of as-ofs: account → rank."""

    as_ofs: tuple[datetime, datetime]
    budget: int
    a: Ranks
    b: Ranks


@dataclass(frozen=True, slots=True)
class _Differs:
    """An account that one side alone selected; ``chance`` orders a sample."""

    chance: int
    account_id: AccountId
    as_ofs: tuple[datetime, datetime]
    kind: Kind
    rank: int


@dataclass(frozen=True, slots=True)
class _Row:
    """What a side's bundle makes of an account; ``codes`` has `BASE` too."""

    score: float
    margin: float
    codes: dict[str, float]


def _compare(reader: StoreReader, a: ComparedSide, b: ComparedSide, asked: ComparisonLimits) -> Comparison:
    id_type = ID_TYPES[Definitions.of(a.row.plan).feature_set.account_id]
    dates: list[DatePair] = []
    drawn: dict[Kind, list[_Differs]] = {"new": [], "dropped": []}
    selected: tuple[set[AccountId], set[AccountId]] = (set(), set())
    for number, found in enumerate(_selections(a, b, asked.budget, id_type)):
        dates.append(date_pair(found.as_ofs, found.budget, found.a, found.b))
        for kind in drawn:
            more = _differing(found, kind, number, id_type)
            drawn[kind] = sorted((*drawn[kind], *more), key=lambda one: (one.chance, one.rank))[:MAX_EXPLAINED]
        selected[0].update(found.a)
        selected[1].update(found.b)
    rows = _rows(a, b, [*drawn["new"], *drawn["dropped"]], id_type)
    became = _decisions(reader, a.row, b.row, selected[0] | selected[1])
    sample = [one for kind in drawn for one in drawn[kind][: -(-asked.n_sample // 2)]]
    sample.sort(key=lambda one: (one.as_ofs, one.kind, one.rank))
    return Comparison(
        a=a.said,
        b=b.said,
        memory_of=a.row.run_id,
        dates=tuple(dates),
        why=tuple(_why(kind, [rows[one] for one in drawn[kind]]) for kind in drawn),
        sample=tuple(_disagreement(one, *rows[one]) for one in sample),
        precision_a=Precision.of(became.get(who) for who in selected[0]),
        precision_b=Precision.of(became.get(who) for who in selected[1]),
        notes=tuple(_notes(a, b, dates, reader)),
    )


def _selections(a: ComparedSide, b: ComparedSide, budget: int | None, id_type: pa.DataType) -> Iterator[_Selected]:
    """Each pair of as-ofs, in order. As in a run, a simulated as-of takes what its side selected before as open."""
    row = a.row
    assert row.decision is not None, "a side has decided"
    assert row.memory is not None, "written with the decision"
    decided = decided_rows(row.decision)
    decided = decided.filter(pc.is_null(decided["stratum"]))  # what was drawn at random was no model's choice
    memory = pq.read_table(verified(row.memory.path, row.memory.sha256)).replace_schema_metadata(None)
    earlier = [pa.array([], id_type), pa.array([], id_type)]
    for as_ofs in _pairs(row.plan.spec.as_ofs(), b.row.plan.spec.as_ofs()):
        own = decided.filter(pc.equal(decided["as_of"], pa.scalar(as_ofs[0], MOMENT))).sort_by("rank")
        k = len(own) if budget is None else budget
        policy = Policy(budget=k, cool_down=row.plan.spec.policy.cool_down)
        released = row.plan.spec.release == "latest" and as_ofs[0] == row.plan.spec.as_ofs()[-1]
        at = Moment(as_of=as_ofs[0], released=released)
        before_a, before_b = (before[:0] if released else before for before in earlier)
        mine = own if budget is None else _best(partial(_scores, a, as_ofs[0]), policy, memory, at, before_a)
        theirs = _best(partial(_scores, b, as_ofs[1]), policy, memory, at, before_b)
        chosen = [table[ACCOUNT_ID].combine_chunks() for table in (mine, theirs)]
        earlier = [pa.concat_arrays([before, ids]) for before, ids in zip(earlier, chosen, strict=True)]
        ranks = [dict(zip(ids.to_pylist(), range(1, len(ids) + 1), strict=True)) for ids in chosen]
        yield _Selected(as_ofs, k, ranks[0], ranks[1])


def _scores(side: ComparedSide, own: datetime, _: datetime) -> Iterable[pa.Table]:
    """A side's scores at its own as-of of a pair."""
    return side.scores(own)


def _best(
    scores: Callable[[datetime], Iterable[pa.Table]], policy: Policy, memory: pa.Table, at: Moment, earlier: pa.Array
) -> pa.Table:
    """What a policy flags of those scores."""
    return flags_in(decide(Question(policy=policy, memory=memory, scores=scores), at, earlier).table)


def _pairs(a: Sequence[datetime], b: Sequence[datetime]) -> list[tuple[datetime, datetime]]:
    """The as-ofs that both have; where there is none, the last of each."""
    common = [(as_of, as_of) for as_of in a if as_of in set(b)]
    return common or [(a[-1], b[-1])]


def _differing(found: _Selected, kind: Kind, number: int, id_type: pa.DataType) -> list[_Differs]:
    mine, other = (found.b, found.a) if kind == "new" else (found.a, found.b)
    alone = [who for who in mine if who not in other]
    chances = hash64(pa.array(alone, id_type), np.uint64(number + 1)).tolist()
    return [_Differs(chance, who, found.as_ofs, kind, mine[who]) for chance, who in zip(chances, alone, strict=True)]


def _rows(
    a: ComparedSide, b: ComparedSide, differing: Sequence[_Differs], id_type: pa.DataType
) -> dict[_Differs, tuple[_Row | None, _Row | None]]:
    """What both sides make of the accounts that differ; None where a side has not the account, or cannot score it."""
    found: dict[_Differs, tuple[_Row | None, _Row | None]] = {}
    for as_ofs in dict.fromkeys(one.as_ofs for one in differing):
        here = [one for one in differing if one.as_ofs == as_ofs]
        ids = pc.unique(pa.array([one.account_id for one in here], id_type))
        made = [_made(side, as_of, ids) for side, as_of in zip((a, b), as_ofs, strict=True)]
        found |= {one: (made[0].get(one.account_id), made[1].get(one.account_id)) for one in here}
    return found


def _made(side: ComparedSide, as_of: datetime, ids: pa.Array) -> dict[AccountId, _Row]:
    codes = codes_of(load_scorer(side.bundle))
    rows: dict[AccountId, _Row] = {}
    for part in side.contributions(as_of, ids):
        by_code = {BASE: part.base, **part.by_code(codes)}
        for place, who in enumerate(part.ids.to_pylist()):
            if math.isfinite(part.margin[place]):
                gave = {code: float(values[place]) for code, values in by_code.items()}
                rows[who] = _Row(float(part.score[place]), float(part.margin[place]), gave)
    return rows


def _why(kind: Kind, rows: Sequence[tuple[_Row | None, _Row | None]]) -> Why:
    """Over accounts that both sides can score: averages of others would not be of the same accounts."""
    both = [(mine, other) for mine, other in rows if mine is not None and other is not None]
    a, b = averages([mine.codes for mine, _ in both]), averages([other.codes for _, other in both])
    base_a, base_b = (held.pop(BASE) if held else None for held in (a, b))
    return Why(kind=kind, n=len(both), base_a=base_a, base_b=base_b, codes=code_pairs(a, b))


def _disagreement(one: _Differs, a: _Row | None, b: _Row | None) -> Disagreement:
    codes = code_pairs(*({code: gave for code, gave in row.codes.items() if code != BASE} if row else None for row in (a, b)))
    return Disagreement(
        account_id=one.account_id,
        as_of=one.as_ofs[one.kind == "new"],
        kind=one.kind,
        rank=one.rank,
        score_a=a.score if a else None,
        score_b=b.score if b else None,
        margin_a=a.margin if a else None,
        margin_b=b.margin if b else None,
        codes=codes[:MAX_CODES],
    )


def _decisions(reader: StoreReader, a: RunRow, b: RunRow, wanted: set[AccountId]) -> dict[AccountId, FlagState]:
    """What people last decided on the accounts: on the flags of the two runs, else on any other of A's queue."""
    found: dict[AccountId, tuple[int, FlagState]] = {}
    for past in reader.past_columns(a.plan.spec.policy.queue, but_not_of=a):
        for who, state, decided_at in zip(past.account_id, past.state, past.decided_at, strict=True):
            if state in DECIDED and decided_at is not None and who in wanted:
                newest = found.get(who)
                if newest is None or decided_at >= newest[0]:
                    found[who] = decided_at, FlagState(state)
    own = {
        held.flag.account_id: FlagState(held.state)
        for row in (b, a)
        for held in reader.flags(row.run_id)
        if held.flag.account_id in wanted and FlagState(held.state) in DECIDED
    }
    return {who: state for who, (_, state) in found.items()} | own


def _notes(a: ComparedSide, b: ComparedSide, dates: Sequence[DatePair], reader: StoreReader) -> Iterator[str]:
    """What a reader of the figures must know."""
    if any(pair.as_of_a != pair.as_of_b for pair in dates):
        yield "the runs have no as-of in common: the last of each is compared, so accounts and features differ too"
    elif a.row.run_id != b.row.run_id and a.row.plan.feature_set != b.row.plan.feature_set:
        yield "the runs have different feature sets"
    policy = a.row.plan.spec.policy
    if policy.tiers or policy.campaign is not None:
        yield "tiers and campaigns of A's policy shaped what A selects; B selects as many by score alone"
    n_none = sum(pair.budget == 0 for pair in dates)
    if n_none:
        yield f"of {n_none} of {len(dates)} as-ofs run A selected nobody, so nothing is compared: --budget K asks of them too"
    for name, side in (("A", a), ("B", b)):
        aside = len(reader.quarantined(side.row.run_id))
        if aside:
            yield f"{aside} partition(s) of {name} were set aside: their accounts have no scores there"
