"""Attempts that look closer at some accounts of a key range: why they were flagged, and what moved since they were cleared."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.attempt.key_slice import KeySlice, rows_at
from batchscore.attempt.outcome import Outcome
from batchscore.decide.again import closer_look_schema
from batchscore.decide.table import EVIDENCE, FLAG, RESERVE
from batchscore.drafts import Drafts
from batchscore.features.feature_set import open_feature_set
from batchscore.features.frame import only
from batchscore.files import verified
from batchscore.flag import REASONS, Reason
from batchscore.keys import ACCOUNT_ID, MOMENT
from batchscore.layout import decided_rows, flags_of
from batchscore.models.contract import Frame, Matrix, conform
from batchscore.models.loading import Route, load_scorer
from batchscore.models.reasons import explain
from batchscore.models.scorer import Scorer
from batchscore.plan import Reasons, Reconsider, Task
from batchscore.sources.segment import MAX_SEGMENT_CHARS, SEGMENT


def reasons_schema(id_type: pa.DataType) -> pa.Schema:
    """One row per flag: its reasons as JSON, and its account's segment (null where there is none)."""
    return pa.schema([("as_of", MOMENT), (ACCOUNT_ID, id_type), ("reasons", pa.string()), (SEGMENT, pa.string())])


def explain_flags(task: Task, work: Reasons, outcome: Outcome, drafts: Drafts, route: Route) -> None:
    """The features of the flags once more, through the same code; `explain` demands the margins that were scored."""
    decided = flags_of(decided_rows(work.decision, FLAG, RESERVE, EVIDENCE), work.score)
    accounts = KeySlice(task, work.score, outcome, among=decided[ACCOUNT_ID].unique())
    scorer = load_scorer(work.score.bundle, route=route)
    schema = reasons_schema(accounts.id_type)
    tables = []
    as_ofs = [as_of for as_of in work.score.as_ofs if pc.is_in(pa.scalar(as_of, MOMENT), value_set=decided["as_of"]).as_py()]
    for as_of, everyone in accounts.frames(as_ofs, outcome):
        flags = decided.filter(pc.equal(decided["as_of"], pa.scalar(as_of, MOMENT))).sort_by(ACCOUNT_ID)
        wanted = pc.is_in(everyone[ACCOUNT_ID], value_set=flags[ACCOUNT_ID].combine_chunks()).to_numpy()
        with outcome.timed("features"):
            frame = conform(only(everyone, wanted), scorer.names, scorer.manifest.category_sets)
        with outcome.timed("reasons"):
            explained = _explained(scorer, frame, flags["margin"].to_numpy(), outcome)
        texts = pa.array([REASONS.dump_json(reasons).decode() for reasons in explained], pa.string())
        segments = _segments(accounts.accounts.at(as_of), wanted)
        tables.append(rows_at(as_of, flags[ACCOUNT_ID], {"reasons": texts, SEGMENT: segments}, schema))
    drafts.write_parquet(tables, schema, "reasons")


def reconsider(task: Task, work: Reconsider, outcome: Outcome, drafts: Drafts, route: Route) -> None:
    """Features of cleared accounts now and as of what they were cleared for, from the same rollups; and their reasons now."""
    asked = flags_of(pq.read_table(verified(work.candidates.path, work.candidates.sha256)), work.score)
    grains = open_feature_set(work.score.feature_set)
    thens = {then for then in asked["then"].to_pylist() if then is not None and grains.is_whole(then)}
    as_ofs = tuple(sorted({*asked["as_of"].to_pylist(), *thens}))
    span = work.score.model_copy(update={"as_ofs": as_ofs, "began": {}})
    accounts = KeySlice(task, span, outcome, among=asked[ACCOUNT_ID].unique())
    scorer = load_scorer(work.score.bundle, route=route)
    frames = dict(accounts.frames(as_ofs, outcome))
    schema = closer_look_schema(accounts.id_type)
    tables = []
    for as_of in sorted(set(asked["as_of"].to_pylist())):
        rows = asked.filter(pc.equal(asked["as_of"], pa.scalar(as_of, MOMENT))).sort_by(ACCOUNT_ID)
        ids = rows[ACCOUNT_ID].combine_chunks()
        wanted = pc.is_in(frames[as_of][ACCOUNT_ID], value_set=ids).to_numpy()
        frame = conform(only(frames[as_of], wanted), scorer.names, scorer.manifest.category_sets)
        with outcome.timed("reasons"):
            explained = _explained(scorer, frame, rows["margin"].to_numpy(), outcome)
        codes = [[reason.code for reason in reasons if reason.contribution > 0] for reasons in explained]
        now = [_values(frames[as_of], account, work.names) for account in ids]
        before = [
            _values(frames[then], account, work.names) if then in thens else [math.nan] * len(work.names)
            for account, then in zip(ids, rows["then"].to_pylist(), strict=True)
        ]
        columns = {"codes": codes, "names": [list(work.names)] * len(ids), "then": before, "now": now}
        tables.append(rows_at(as_of, rows[ACCOUNT_ID], columns, schema))
    drafts.write_parquet(tables, schema, "closer_look")


def _explained(scorer: Scorer, frame: Frame, margins: Matrix, outcome: Outcome) -> tuple[tuple[Reason, ...], ...]:
    """The reasons of rows. The outcome tells who computed them (the compiled explainer only if it did all) and what differed."""
    n_fallbacks = scorer.n_fallbacks
    explained = explain(scorer, frame, margins)
    outcome.scorer = scorer.explained_by if outcome.scorer in {"", scorer.explained_by} else "xgboost"
    if scorer.n_fallbacks > n_fallbacks and "scorer_differs" not in outcome.alerts:
        outcome.alerts.append("scorer_differs")
    return explained


def _values(frame: pa.Table, account: pa.Scalar, names: Sequence[str]) -> list[float]:
    """Features of one account as numbers; NaN for one without a value, for text, and where the account is not there."""
    row = frame.select(list(names)).filter(pc.equal(frame[ACCOUNT_ID], account)).to_pylist()
    held = row[0] if row else {}
    return [math.nan if (value := held.get(name)) is None or isinstance(value, str) else float(value) for name in names]


def _segments(accounts: pa.Table, wanted: npt.NDArray[np.bool_]) -> pa.Array | pa.ChunkedArray:
    """The segment of each ``wanted`` account, cut where no name of a group is so long; null where the spec declares none."""
    if SEGMENT not in accounts.column_names:
        return pa.nulls(int(wanted.sum()), pa.string())
    return pc.utf8_slice_codeunits(accounts[SEGMENT].filter(pa.array(wanted)).cast(pa.string()), 0, MAX_SEGMENT_CHARS)
