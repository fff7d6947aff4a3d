"""Attempts that score a key range: features of each as-of once, every bundle of the pass over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import pyarrow as pa

from batchscore.attempt.key_slice import KeySlice, rows_at
from batchscore.attempt.outcome import Outcome
from batchscore.digest import KeyDigest
from batchscore.drafts import Drafts
from batchscore.errors import PartitionError, Refused
from batchscore.features.accounts import Accounts
from batchscore.features.coverage import is_covered
from batchscore.features.frame import make_frame, only, population
from batchscore.features.poison import are_equal, poisoned, poisoned_accounts
from batchscore.features.windows import prepare
from batchscore.keys import ACCOUNT_ID, MOMENT, key_digest
from batchscore.models.bounds import check_frame
from batchscore.models.contract import conform
from batchscore.models.loading import Route, load_scorer
from batchscore.models.scorer import Scorer, require_riders
from batchscore.plan import Partition, Score, Task
from batchscore.report.histogram import Counts, histogram, to_footer
from batchscore.report.proof import key_name, keys_to_footer

MAX_INVALID_SCORES: Final = 1e-4  # of a partition's scores: beyond that the model is broken, not the rows
MAX_ALERTS: Final = 8  # told of a partition: a receipt is small, and a source that stopped is told by a few of its features


def scores_schema(id_type: pa.DataType) -> pa.Schema:
    """One row per as-of and scored account, sorted by both."""
    return pa.schema([("as_of", MOMENT), (ACCOUNT_ID, id_type), ("margin", pa.float32()), ("score", pa.float32())])


def rejects_schema(id_type: pa.DataType) -> pa.Schema:
    """One row per account that could not be scored at an as-of, and why (`errors.REJECT_CODES`)."""
    return pa.schema([("as_of", MOMENT), (ACCOUNT_ID, id_type), ("code", pa.string())])


def score(task: Task, work: Score, outcomes: Sequence[Outcome], drafts: Sequence[Drafts], route: Route) -> None:
    """The features of each as-of once, scored by the bundle of each partition of the task: an outcome and its drafts for each.

    Each bundle's files, counts and keys are what they are when it is scored alone; the time of what they share is the first's.
    """
    shared = Outcome()
    accounts = KeySlice(task, work, shared)
    passes = [
        _Pass(partition, accounts, outcome, files, route)
        for partition, outcome, files in zip((task.partition, *task.beside), outcomes, drafts, strict=True)
    ]
    for as_of, frame in accounts.frames(work.as_ofs, shared):
        if as_of == work.guarded:
            _guard(accounts, as_of, frame, shared)
        with shared.timed("features"):
            there = _There.at(as_of, accounts, frame)
        for one in passes:
            one.score(there)
    for one in passes:
        one.outcome.counts |= shared.counts
        one.finish()
    outcomes[0].seconds |= shared.seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class _There:
    """The features of the accounts to be scored at an as-of, and the keys of the others; ``repeated``: of further rows."""

    as_of: datetime
    frame: pa.Table
    repeated: KeyDigest
    outside: KeyDigest
    unscoreable: KeyDigest

    @classmethod
    def at(cls, as_of: datetime, accounts: KeySlice, everyone: pa.Table) -> _There:
        ids, held = accounts.accounts.ids, accounts.accounts.at(as_of)
        inside = population(held, as_of)
        covered = is_covered(held, accounts.began[as_of], as_of, accounts.feature_set)
        return cls(
            as_of=as_of,
            frame=only(everyone, inside & covered),
            repeated=key_digest(accounts.accounts.repeated),
            outside=key_digest(ids.filter(pa.array(~inside))),
            unscoreable=key_digest(ids.filter(pa.array(inside & ~covered))),
        )


class _Pass:
    """The scores of one bundle, from its first as-of to its last."""

    def __init__(self, partition: Partition, accounts: KeySlice, outcome: Outcome, drafts: Drafts, route: Route) -> None:
        assert isinstance(partition.work, Score)
        self.outcome = outcome
        self._drafts, self._id_type = drafts, accounts.id_type
        self._scorer = load_scorer(partition.work.bundle, route=route)
        self._n_fallbacks = self._scorer.n_fallbacks
        self._rejects: list[pa.Table] = []
        self._histograms: dict[datetime, Counts] = {}
        self._scores = drafts.begin_parquet(scores_schema(accounts.id_type), "scores")

    def score(self, there: _There) -> None:
        """Score everybody there is to score at an as-of, and write it down."""
        table = _score_as_of(self._id_type, self._scorer, there, self._rejects, self.outcome)
        self._histograms[there.as_of] = histogram(table["score"].to_numpy())
        with self.outcome.timed("write"):
            self._scores.write(table)

    def finish(self) -> None:
        """Prove the scorer once more, and end the files."""
        outcome = self.outcome
        with outcome.timed("predict"):
            require_riders(self._scorer)
        said = to_footer(self._histograms) | keys_to_footer(outcome.keys)
        outcome.keys = {}
        with outcome.timed("write"):
            self._scores.end(said)
        outcome.count("scores", self._scores.n_rows)
        outcome.scorer = self._scorer.name
        if self._scorer.n_fallbacks > self._n_fallbacks:
            outcome.alerts.append("scorer_differs")
        if any(map(len, self._rejects)):
            self._drafts.write_parquet(self._rejects, rejects_schema(self._id_type), "rejects")


def _guard(accounts: KeySlice, as_of: datetime, frame: pa.Table, outcome: Outcome) -> None:
    """Make the features once more with everything later poisoned; a bit that differs ends the run before anything is released."""
    feature_set, ids = accounts.feature_set, accounts.accounts.ids
    declared = feature_set.accounts
    with outcome.timed("guard"):
        rows = poisoned_accounts(accounts.accounts.rows, as_of, declared)
        held = Accounts(rows, history=declared.history is not None).at(as_of)
        prepared = {
            table: prepare(ids, poisoned(rollup, as_of, feature_set), feature_set, table)
            for table, rollup in accounts.rollups.items()
        }
        again = make_frame(held, prepared, as_of, feature_set)
        same = are_equal(frame, again) and bool((population(accounts.accounts.at(as_of), as_of) == population(held, as_of)).all())
    if not same:
        names = [name for name in frame.column_names if not are_equal(frame.select([name]), again.select([name]))]
        raise Refused(
            "leak_found",
            f"of {', '.join(names) or 'the population'}: what came later decides",
            where=f"as-of {as_of.isoformat()}",
            remedy="report it: nothing of this run was released",
        )
    outcome.count(key_name("guarded", as_of), len(frame))


def _score_as_of(id_type: pa.DataType, scorer: Scorer, there: _There, rejects: list[pa.Table], outcome: Outcome) -> pa.Table:
    """Scores of one as-of; what cannot be scored goes to ``rejects``; every account's key is counted somewhere."""
    as_of = there.as_of
    outcome.add_digest("repeated", as_of, there.repeated)
    outcome.add_digest("outside", as_of, there.outside)
    outcome.add_digest("unscoreable", as_of, there.unscoreable)
    with outcome.timed("contract"):
        frame = conform(there.frame, scorer.names, scorer.manifest.category_sets)
        alerts = check_frame(frame, scorer.manifest.features, where=f"as-of {as_of:%Y-%m-%d}")
        outcome.alerts = [*dict.fromkeys((*outcome.alerts, *alerts))][:MAX_ALERTS]
    with outcome.timed("predict"):
        margin = scorer.margin(frame)
        score = scorer.score_of(margin)
    with np.errstate(invalid="ignore"):
        invalid = ~frame.unscorable & ~((score >= 0) & (score <= 1))
    if invalid.sum() > MAX_INVALID_SCORES * len(score):
        raise PartitionError(
            "score_invalid",
            f"{int(invalid.sum())} of {len(score)} scores are NaN or outside [0, 1]",
            where=f"as-of {as_of:%Y-%m-%d}",
            remedy="look at the model: batchscore check SPEC",
        )
    ids = there.frame[ACCOUNT_ID]
    unseen = frame.unscorable & ~frame.nonfinite
    for code, mask in (("nonfinite_feature", frame.nonfinite), ("unseen_category", unseen), ("score_invalid", invalid)):
        if mask.any():
            rejected = ids.filter(pa.array(mask))
            rejects.append(rows_at(as_of, rejected, {"code": pa.repeat(code, len(rejected))}, rejects_schema(id_type)))
            outcome.add_keys("rejected", as_of, rejected)
            outcome.count(f"rejected {code}", len(rejected))
    good = ~(frame.unscorable | invalid)
    ids = ids if good.all() else ids.filter(pa.array(good))
    outcome.add_keys("scored", as_of, ids)
    return rows_at(as_of, ids, {"margin": margin[good], "score": score[good]}, scores_schema(id_type))
