"""Decide: which scores become flags, which stay in reserve, whom memory withholds. Pure; what it reads comes from functions.

The walk (`walk`) goes from the best score down and is over long before the last, so it is given the best few of all, and more
while they do not suffice: the result is that of a walk over everything. What a policy goes by beside the score (the groups an
account is in, what people made of it) is looked up for those alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.decide.adding import may_add, selected_anyway
from batchscore.decide.again import CloserLook, moved_since
from batchscore.decide.best import SCORED, Best, best_of, widened
from batchscore.decide.memory import Judged, Memory, Moment, Withheld, judge
from batchscore.decide.sample import Lots, Stratum, draw, interleaved, seed_of
from batchscore.decide.table import EVIDENCE, FLAG, RESERVE, WITHHELD, decision_schema, of_standing
from batchscore.decide.tiers import Rules, lowest_threshold, rules_of
from batchscore.decide.walk import Purses, Standing, walk
from batchscore.errors import RunFailed
from batchscore.keys import ACCOUNT_ID, MOMENT, hash64, positions
from batchscore.policy import Policy, n_sampled

SLACK = 1_024  # candidates beyond what a walk is sure to need; tests make it smaller
_KEY: Final = b"batchscore.decided"
_NAMES: Final = np.array(["", FLAG, RESERVE, WITHHELD, WITHHELD], object)  # by `Standing`


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What decide is asked with, whatever the as-of.

    ``memory``: of `memory.remember`. ``scores``: as-of → tables of account_id, score and margin, each account once; asked
    again where a walk needs more. ``groups``: (as-of, accounts) → account_id and the columns that the policy names, of those it
    knows. ``closer_looks``: as-of → what a closer look at cleared accounts found. ``segment``: its column. ``seed``: of the plan.
    """

    policy: Policy
    memory: pa.Table
    scores: Callable[[datetime], Iterable[pa.Table]]
    groups: Callable[[datetime, pa.Array], pa.Table] | None = None
    closer_looks: Callable[[datetime], Mapping[int | str, CloserLook]] = lambda _: {}
    segment: str | None = None
    seed: str = ""

    @property
    def id_type(self) -> pa.DataType:
        """Of the account ids."""
        return self.memory.schema.field(ACCOUNT_ID).type


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What a decision tells of an as-of beside its rows. ``n_above``: scores at or above the lowest threshold, if it has one."""

    n_above: int | None
    n_open: int
    strata: tuple[Stratum, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Decided:
    """One as-of: ``table`` (of `decision_schema`: flags by rank, reserve, evidence, the withheld by score), and what is told."""

    table: pa.Table
    told: Told


def decide_dates(
    asked: Question, as_ofs: Sequence[datetime], *, release: Literal["none", "latest"]
) -> Iterator[tuple[datetime, Decided]]:
    """What `decide` says of each as-of, in order of time; as they are made.

    A simulated as-of sees the memory as it was then, and the simulated flags of earlier ones as still open: an account is
    flagged once. With ``release`` latest the last as-of is no simulation: it sees real flags only, as they stand now.
    Between dates only the ids flagged so far are kept.
    """
    in_order = sorted(as_ofs)
    simulated = pa.array([], asked.id_type)
    for as_of in in_order:
        at = Moment(as_of=as_of, released=release == "latest" and as_of == in_order[-1])
        decided = decide(asked, at, simulated[:0] if at.released else simulated)
        simulated = pa.concat_arrays([simulated, *of_standing(decided.table, FLAG)[ACCOUNT_ID].chunks])
        yield as_of, decided


def decide(asked: Question, at: Moment, simulated: pa.Array | None = None) -> Decided:
    """The accounts to flag at one as-of, best first, and beside them the reserve and whom memory withheld.

    ``simulated``: further accounts with an open flag.

    Raises:
        TypeError: ids of scores and memory have different types.
        RunFailed: ``proof_failed``: an account came twice into the selection.
    """
    policy, memory = asked.policy, Memory(asked.memory, at)
    also_open = pa.array([], asked.id_type) if simulated is None else simulated
    n_open = pc.count_distinct(pa.concat_arrays([memory.open_accounts(), also_open])).as_py()
    budget = None if policy.budget is None else max(0, policy.budget - (n_open if policy.less_open else 0))
    n_drawn = n_sampled(policy.sample, budget)
    looked = _Look(asked, at, memory, also_open)
    walked = looked.walk(None if budget is None else budget - n_drawn, n_drawn)
    drawn, strata = walked.drawn()
    table = _ranked(walked.found(), drawn, seed_of(asked.seed, at.as_of))
    if pc.count_distinct(table[ACCOUNT_ID]).as_py() != len(table):
        raise RunFailed(
            "proof_failed",
            "an account was scored twice for one as-of",
            where=f"as-of {at.as_of.isoformat()}",
            remedy="report it to batchscore with the run id: this must not be",
        )
    n_above = walked.best.n_above if np.isfinite(lowest_threshold(policy)) else None
    return Decided(table=table, told=Told(n_above=n_above, n_open=n_open, strata=strata))


def to_metadata(told: Mapping[datetime, Told]) -> dict[bytes, bytes]:
    """Key and value for a decision file's metadata."""
    held = {as_of.isoformat(): asdict(one) for as_of, one in told.items()}
    return {_KEY: json.dumps(held, separators=(",", ":"), sort_keys=True).encode()}


def from_metadata(metadata: Mapping[bytes, bytes] | None) -> dict[datetime, Told]:
    """The inverse of `to_metadata`; empty for a file of an earlier release."""
    held = json.loads((metadata or {}).get(_KEY, b"{}"))
    return {
        datetime.fromisoformat(as_of): Told(
            n_above=one["n_above"], n_open=one["n_open"], strata=tuple(Stratum(**stratum) for stratum in one["strata"])
        )
        for as_of, one in held.items()
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class _Walked:
    """A walk that came to its end.

    ``people``: the candidates, best first, then whoever a sample could draw. ``rows``: of each of them, as if it were flagged.
    ``standings`` and ``adds``: of the candidates.
    """

    best: Best
    lots: Lots | None
    people: pa.Table
    rows: pa.Table
    standings: npt.NDArray[np.int8]
    adds: npt.NDArray[np.bool_]
    is_free: npt.NDArray[np.bool_]  # of memory, of each of the people
    purses: Purses

    def found(self) -> pa.Table:
        """All candidates that were not passed by, in order."""
        places = np.flatnonzero((self.standings != Standing.PASSED) | self.adds)
        table, standings = self.rows.take(places), self.standings[places]
        capped = pa.array(standings == Standing.CAPPED)
        columns = {
            "standing": pc.if_else(pa.array(self.adds[places]), EVIDENCE, pa.array(_NAMES[standings], pa.string())),
            "withheld": pc.if_else(capped, Withheld.TIER.value, table["withheld"]),
            "why": pc.if_else(capped, "the budget of a tier it is in is used up", table["why"]),
        }
        for name, column in columns.items():
            table = table.set_column(table.schema.get_field_index(name), name, column)
        return table

    def drawn(self) -> tuple[pa.Table, tuple[Stratum, ...]]:
        """Rows of the sample, and its strata; whoever is drawn and memory withholds, or a tier has no room for, is left out.

        Asked once: lots and purses are used up.
        """
        if self.lots is None:
            return self.rows.slice(0, 0), ()
        candidates = self.people.slice(0, len(self.standings))
        is_reserve = self.standings == Standing.RESERVE
        listed = np.flatnonzero(is_reserve | (self.standings == Standing.FLAG))
        self.lots.offer(candidates, listed)
        drawn = draw(self.lots, candidates.filter(pa.array(is_reserve)).select(SCORED))
        ids = drawn.table[ACCOUNT_ID].combine_chunks()
        at = positions(ids, self.people[ACCOUNT_ID].combine_chunks())
        has_room = np.isin(at, listed)  # of the reserve: those have paid
        order = np.flatnonzero(~has_room & self.is_free[at])
        for place in order[np.argsort(hash64(ids.take(order), self.lots.seed), kind="stable")].tolist():
            has_room[place] = self.purses.take(int(at[place]))
        rows = self.rows.take(at)
        for name in ("stratum", "probability"):
            rows = rows.set_column(rows.schema.get_field_index(name), name, drawn.table[name])
        return rows.filter(pa.array(self.is_free[at] & has_room)), drawn.strata


class _Look:
    """Looks up what there is to know of candidates at one as-of."""

    def __init__(self, asked: Question, at: Moment, memory: Memory, also_open: pa.Array) -> None:
        self._asked, self._at, self._memory, self._also_open = asked, at, memory, also_open
        self._moved = moved_since(asked.policy.again, asked.closer_looks(at.as_of))
        self._cap = asked.policy.campaign.cap if asked.policy.campaign else 1

    def walk(self, budget: int | None, n_drawn: int) -> _Walked:
        """Walk the best scores: as many as the walk needs. Beside them those are looked up whom a sample could draw."""
        policy = self._asked.policy
        n_known = len(self._asked.memory) + len(self._also_open)
        most = None if budget is None else budget + policy.reserve + n_known + SLACK
        while True:
            lots = Lots(n_drawn, seed_of(self._asked.seed, self._at.as_of)) if n_drawn else None
            scores = self._asked.scores(self._at.as_of)
            best = best_of(scores, most, lowest_threshold(policy), self._asked.id_type, None if lots is None else lots.offer)
            people = self._with_groups(_together(best.table, lots))
            rules, judged, line = rules_of(policy, people), self._judge(people), widened(best.table)
            withheld = [kind is not None for kind in judged.kinds]
            found = walk(line, rules, withheld, budget=budget, cap=self._cap, reserve=policy.reserve)
            adds, is_over = self._adds(best.table, line, judged, rules)
            if most is None or best.is_all or (found.is_over and is_over):
                return _Walked(
                    best=best,
                    lots=lots,
                    people=people,
                    rows=self._rows(people, judged, rules),
                    standings=found.standings,
                    adds=adds,
                    is_free=~np.array(withheld, np.bool_),
                    purses=found.purses,
                )
            most *= 4

    def _adds(
        self, candidates: pa.Table, scores: npt.NDArray[np.float64], judged: Judged, rules: Rules
    ) -> tuple[npt.NDArray[np.bool_], bool]:
        """Who adds evidence to a flag that stands, bool (n,); and whether more candidates would change nothing.

        A simulated date adds nothing. Without a flag that stands nothing more is walked.
        """
        nobody = np.zeros(len(candidates), np.bool_)
        if not self._at.released or not len(self._memory.newest_evidence()):
            return nobody, True
        anyway, is_over = selected_anyway(scores, judged, rules, self._asked.policy, cap=self._cap)
        return anyway & may_add(candidates, judged, rules, self._memory, self._at.as_of), is_over

    def _with_groups(self, best: pa.Table) -> pa.Table:
        if self._asked.groups is None or not len(best):
            return best
        known = self._asked.groups(self._at.as_of, best[ACCOUNT_ID].combine_chunks())
        at = pc.index_in(best[ACCOUNT_ID], value_set=known[ACCOUNT_ID].combine_chunks())
        for name in known.column_names:
            if name != ACCOUNT_ID:
                best = best.append_column(name, known[name].take(at.combine_chunks()))
        return best

    def _judge(self, candidates: pa.Table) -> Judged:
        groups = {"domain": self._asked.policy.domain, "segment": self._asked.segment}
        judged = judge(candidates, self._memory, self._asked.policy.cool_down, groups, self._moved, self._at)
        for place in np.flatnonzero(pc.is_in(candidates[ACCOUNT_ID], value_set=self._also_open).to_numpy()).tolist():
            judged.kinds[place], judged.whys[place] = Withheld.OPEN, "a simulated flag of it stands"
        return judged

    def _rows(self, candidates: pa.Table, judged: Judged, rules: Rules) -> pa.Table:
        """Candidates as flags of a decision, unranked."""
        policy, n = self._asked.policy, len(candidates)

        def column(name: str | None) -> pa.Array | pa.ChunkedArray:
            return candidates[name] if name is not None and name in candidates.column_names else pa.nulls(n, pa.string())

        return pa.table(
            {
                ACCOUNT_ID: candidates[ACCOUNT_ID],
                "as_of": pa.repeat(pa.scalar(self._at.as_of, MOMENT), n),
                "rank": pa.nulls(n, pa.int64()),
                "score": candidates["score"],
                "margin": candidates["margin"],
                "standing": pa.repeat(FLAG, n),
                "withheld": pa.array(judged.kinds, pa.string()),
                "why": pa.array(judged.whys, pa.string()),
                "since": pa.array(judged.since, pa.string()),
                "group": column(policy.campaign.by if policy.campaign else None),
                "segment": column(self._asked.segment),
                "domain": column(policy.domain),
                "second_reviewer": pa.array(rules.second),
                "stratum": pa.nulls(n, pa.string()),
                "probability": pa.repeat(1.0, n),
            },
            schema=decision_schema(self._asked.id_type),
        )


def _together(best: pa.Table, lots: Lots | None) -> pa.Table:
    """The best, in their order, then those whom a sample could draw."""
    others = None if lots is None else lots.table()
    return best if others is None else pa.concat_tables([best, others.cast(best.schema)]).combine_chunks()


def _ranked(found: pa.Table, drawn: pa.Table, seed: np.uint64) -> pa.Table:
    """Flags by rank, the drawn among them, then the reserve, then the withheld."""
    flags, withheld = of_standing(found, FLAG), of_standing(found, WITHHELD)
    reserve, evidence = of_standing(found, RESERVE), of_standing(found, EVIDENCE)
    reserve = reserve.filter(pc.invert(pc.is_in(reserve[ACCOUNT_ID], value_set=drawn[ACCOUNT_ID].combine_chunks())))
    of_flags, of_drawn = interleaved(len(flags), drawn[ACCOUNT_ID].combine_chunks(), seed)
    n = len(flags) + len(drawn)
    of_reserve = range(n + 1, n + len(reserve) + 1)
    before = np.cumsum(pc.equal(found["standing"], FLAG).to_numpy())  # flags above each row, by score
    is_evidence = pc.equal(found["standing"], EVIDENCE).to_numpy()
    of_evidence = np.append(np.asarray(of_flags, np.int64), n + 1)[before[is_evidence]]
    parts = [
        part.set_column(part.schema.get_field_index("rank"), "rank", pa.array(ranks, pa.int64()))
        for part, ranks in (
            (flags, of_flags),
            (drawn, of_drawn),
            (reserve, of_reserve),
            (evidence, of_evidence),
            (withheld, [None] * len(withheld)),
        )
    ]
    unflagged = [_without_chance(part) for part in parts[2:]]
    return pa.concat_tables([pa.concat_tables(parts[:2]).sort_by("rank"), *unflagged]).combine_chunks()


def _without_chance(rows: pa.Table) -> pa.Table:
    at = rows.schema.get_field_index("probability")
    return rows.set_column(at, "probability", pa.nulls(len(rows), pa.float64()))
