"""One attempt at one partition, on a worker: read what the task refers to, compute, write uniquely named files, return a receipt.

An attempt may run twice, or wake after it was given up: whatever it writes has a name drawn here, inside, and stays
unreferenced until the driver commits its receipt. It never sees the database of runs.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore import log_fields
from batchscore.decide.again import closer_look_schema
from batchscore.decide.table import FLAG, RESERVE
from batchscore.digest import KeyDigest
from batchscore.errors import PartitionError, Refused
from batchscore.failpoints import Point, reach
from batchscore.features.accounts import MOMENT, Accounts
from batchscore.features.coverage import is_covered
from batchscore.features.day_counts import DAYS_SCHEMA, added, count_events, count_rollup
from batchscore.features.feature_set import FeatureSet, open_feature_set
from batchscore.features.frame import make_frame, make_frames, only, population
from batchscore.features.poison import are_equal, poisoned, poisoned_accounts
from batchscore.features.python import refuse_other_functions
from batchscore.features.rollup import merge, roll_up
from batchscore.features.windows import prepare
from batchscore.files import ParquetDraft, verified, write_parquet
from batchscore.flag import REASONS
from batchscore.key_index import KeyIndex, open_index
from batchscore.keys import ACCOUNT_ID, ID_TYPES, key_digest
from batchscore.layout import KEYS_SCHEMA, decided_rows, flags_of
from batchscore.models.bounds import check_frame
from batchscore.models.contract import conform
from batchscore.models.reasons import explain
from batchscore.models.scorer import Route, Scorer, load_scorer, require_riders
from batchscore.plan import FreezeEvents, FreezeParquet, FreezeSql, Merge, Partition, Reasons, Reconsider, Rollup, Score, Task
from batchscore.receipt import HELD_BACK, Output, Receipt
from batchscore.report.histogram import Counts, histogram, to_footer
from batchscore.report.proof import key_name
from batchscore.sources.brake import Brake
from batchscore.sources.canonical import Rows
from batchscore.sources.freeze import Frozen, freeze_events, freeze_parquet, freeze_sql, live_source, read_events, write_rejects
from batchscore.sources.segment import MAX_SEGMENT_CHARS, SEGMENT

MAX_INVALID_SCORES: Final = 1e-4  # of a partition's scores: beyond that the model is broken, not the rows
MAX_ALERTS: Final = 8  # told of a partition: a receipt is small, and a source that stopped is told by a few of its features
MERGED_ROWS: Final = 250_000  # of rollups, brought together at once


@dataclass(slots=True)
class _Outcome:
    """What a receipt is made of, gathered while the attempt goes on."""

    outputs: list[Output] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    keys: dict[str, KeyDigest] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    scorer: str = ""
    alerts: list[str] = field(default_factory=list)
    worst_lag_s: float | None = None

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the block's seconds to ``part``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] = round(self.seconds.get(part, 0.0) + time.perf_counter() - start, 4)

    def count(self, name: str, n: int) -> None:
        """Add ``n`` under ``name``; nothing is kept of zeros."""
        if n:
            self.counts[name] = self.counts.get(name, 0) + n

    def add_keys(self, part: str, as_of: datetime, ids: pa.Array | pa.ChunkedArray) -> None:
        """Add account ids to the key digest of ``part`` at ``as_of``."""
        self.add_digest(part, as_of, key_digest(ids))

    def add_digest(self, part: str, as_of: datetime, keys: KeyDigest) -> None:
        """Add a key digest to that of ``part`` at ``as_of``; the empty set is left out."""
        if keys != KeyDigest():
            name = key_name(part, as_of)
            self.keys[name] = self.keys.get(name, KeyDigest()) + keys


def attempt(task: Task, *, route: Route = "fastest") -> Receipt:
    """Do the task's partition, and those beside it; ``route`` (see `load_scorer`) changes the speed and never a bit.

    Raises:
        PartitionError: doing it again would not help: the partition is to be quarantined.
        AttemptFailed: a disk or a worker failed.
        Refused: the input is such that the whole run must end.
    """
    drawn = uuid.uuid4().hex
    with log_fields.bound(attempt=drawn):
        return _attempt(task, route, drawn)


def _attempt(task: Task, route: Route, drawn: str) -> Receipt:
    work = task.partition.work
    outcome, beside = _Outcome(), [_Outcome() for _ in task.beside]
    started = time.perf_counter()
    reach(Point.ATTEMPT_BEGUN)
    match work:
        case FreezeParquet():
            _freeze(task, freeze_parquet, work, outcome)
        case FreezeSql():
            _freeze_gently(task, freeze_sql, work, outcome)
        case FreezeEvents():
            _freeze_gently(task, freeze_events, work, outcome)
        case Rollup():
            _roll_up(task, work, outcome)
        case Merge():
            _merge(task, work, outcome)
        case Score():
            _score(task, work, [outcome, *beside], route)
        case Reconsider():
            _reconsider(task, work, outcome, route)
        case Reasons():
            _explain(task, work, outcome, route)
    named = sum(sum(one.seconds.values()) for one in (outcome, *beside))
    outcome.seconds["other"] = round(max(0.0, time.perf_counter() - started - named), 4)  # opening, hashing: what has no name
    others = zip(task.beside, beside, strict=True)
    receipts = tuple(_receipt(partition, one, uuid.uuid4().hex) for partition, one in others)
    reach(Point.ATTEMPT_DONE)
    return _receipt(task.partition, outcome, drawn).model_copy(update={"beside": receipts})


def _receipt(partition: Partition, outcome: _Outcome, drawn: str) -> Receipt:
    return Receipt(
        stage=partition.stage,
        number=partition.number,
        address=partition.address,
        attempt=drawn,
        outputs=tuple(outcome.outputs),
        counts=outcome.counts,
        keys={name: str(keys) for name, keys in outcome.keys.items()},
        seconds=outcome.seconds,
        scorer=outcome.scorer,
        alerts=tuple(outcome.alerts),
        worst_lag_s=outcome.worst_lag_s,
        live=isinstance(partition.work, (FreezeSql, FreezeEvents)),
    )


def scores_schema(id_type: pa.DataType) -> pa.Schema:
    """One row per as-of and scored account, sorted by both."""
    return pa.schema([("as_of", MOMENT), (ACCOUNT_ID, id_type), ("margin", pa.float32()), ("score", pa.float32())])


def rejects_schema(id_type: pa.DataType) -> pa.Schema:
    """One row per account that could not be scored at an as-of, and why (`errors.REJECT_CODES`)."""
    return pa.schema([("as_of", MOMENT), (ACCOUNT_ID, id_type), ("code", pa.string())])


def reasons_schema(id_type: pa.DataType) -> pa.Schema:
    """One row per flag: its reasons as JSON, and its account's segment (null where there is none)."""
    return pa.schema([("as_of", MOMENT), (ACCOUNT_ID, id_type), ("reasons", pa.string()), (SEGMENT, pa.string())])


class _Slice:
    """The accounts and rollups of one key range (or of the ids ``among`` it), read once and prepared for any as-of."""

    def __init__(self, task: Task, work: Score, outcome: _Outcome, among: pa.Array | None = None) -> None:
        self.feature_set = open_feature_set(work.feature_set)
        kind = self.feature_set.account_id
        self.id_type = ID_TYPES[kind]
        refuse_other_functions(self.feature_set, work.functions)
        with outcome.timed("read"):
            rows = open_index(task.store, kind, work.snapshots).read(work.keys, among=among)
            self.rollups = {
                table: open_index(task.store, kind, index).read(work.keys, among=among) for table, index in work.rollups.items()
            }
        self.accounts = Accounts.of(rows, self.feature_set.accounts)
        ids = self.accounts.ids
        with outcome.timed("features"):
            span = work.as_ofs[0], work.as_ofs[-1]
            self.prepared = {table: prepare(ids, rollup, self.feature_set, table, span) for table, rollup in self.rollups.items()}
        self.began = {
            as_of: {table: moments[place] for table, moments in work.began.items()} for place, as_of in enumerate(work.as_ofs)
        }
        outcome.count("rows", len(self.accounts))
        outcome.count(key_name("orphans", work.as_ofs[0]), sum(prepared.n_orphans for prepared in self.prepared.values()))

    def frames(self, as_ofs: Sequence[datetime], outcome: _Outcome) -> Iterator[tuple[datetime, pa.Table]]:
        """Each as-of and the features of all accounts at it; the windows slide over the rollups once."""
        frames = make_frames(self.accounts, self.prepared, as_ofs, self.feature_set)
        for as_of in as_ofs:
            with outcome.timed("features"):
                frame = next(frames)
            yield as_of, frame


Freeze = Callable[[Any, Path, str, FeatureSet], Frozen]


def _freeze(task: Task, freeze: Freeze, work: FreezeParquet | FreezeSql | FreezeEvents, outcome: _Outcome) -> None:
    with outcome.timed("freeze"):
        outputs, counts, keys = freeze(work, Path(task.store), task.partition.address, open_feature_set(work.feature_set))
    outcome.outputs += outputs
    outcome.counts |= counts
    outcome.keys |= keys


def _freeze_gently(task: Task, freeze: Callable[..., Frozen], work: FreezeSql | FreezeEvents, outcome: _Outcome) -> None:
    brake = Brake(live_source(work, task.gentle), just_looked=True)  # by the driver, which handed it out
    _freeze(task, partial(freeze, brake=brake), work, outcome)
    outcome.worst_lag_s = brake.worst_lag_s
    if brake.held_s:
        outcome.seconds[HELD_BACK] = round(brake.held_s, 4)
        outcome.seconds["freeze"] = round(outcome.seconds["freeze"] - outcome.seconds[HELD_BACK], 4)


def _roll_up(task: Task, work: Rollup, outcome: _Outcome) -> None:
    """Each run of events becomes a rollup of its own: they merge exactly when they are read. Their days are counted together."""
    store, address = Path(task.store), task.partition.address
    feature_set = open_feature_set(work.feature_set)
    rejects: list[pa.Table] = []
    days: list[pa.Table] = []
    batches = read_events(work, feature_set)
    while (events := _read_next(batches, outcome)) is not None:
        with outcome.timed("rollup"):
            rolled = roll_up(events.table, feature_set, work.table)
            grain = feature_set.grain
            days.append(count_rollup(rolled, grain) if work.by is None else count_events(events.table, grain, SEGMENT))
        with outcome.timed("write"):
            outcome.outputs.append(write_parquet([rolled], rolled.schema, store, address, "rollup"))
        outcome.count("events", len(events.table))
        rejects.append(events.rejects)
        del events, rolled  # before the next run is gathered
        pa.default_memory_pool().release_unused()  # else what the allocator keeps for later grows with the input
    counts = added(days, where=f"gate of {work.table}")
    outcome.outputs.append(write_parquet([counts], DAYS_SCHEMA, store, address, "days"))
    outcome.outputs += write_rejects(rejects, store, address, outcome.counts)


def _read_next(batches: Iterator[Rows], outcome: _Outcome) -> Rows | None:
    with outcome.timed("read"):
        return next(batches, None)


def _merge(task: Task, work: Merge, outcome: _Outcome) -> None:
    """Rollups brought together a key range at a time, so memory does not follow their size; one file, in key order."""
    feature_set = open_feature_set(work.feature_set)
    index = KeyIndex.build(Path(task.store), feature_set.account_id, work.rollups)

    def merged() -> Iterator[pa.Table]:
        for keys, _ in index.cut(MERGED_ROWS):
            yield merge([index.read(keys)], feature_set, work.table)

    with outcome.timed("merge"):
        written = write_parquet(merged(), index.schema, Path(task.store), task.partition.address, "rollup")
    outcome.outputs.append(written)
    outcome.count("rows", index.n_rows)


def _score(task: Task, work: Score, outcomes: Sequence[_Outcome], route: Route) -> None:
    """The features of each as-of once, scored by the bundle of each partition of the task.

    Each bundle's files, counts and keys are what they are when it is scored alone; the time of what they share is the first's.
    """
    shared = _Outcome()
    accounts = _Slice(task, work, shared)
    with ExitStack() as drafts:
        passes = [
            drafts.enter_context(_Pass(task.store, partition, accounts, outcome, route))
            for partition, outcome in zip((task.partition, *task.beside), outcomes, strict=True)
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
    def at(cls, as_of: datetime, accounts: _Slice, everyone: pa.Table) -> _There:
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
    """The scores of one bundle, from its first as-of to its last. A context manager: what was not finished leaves no file."""

    def __init__(self, store: str, partition: Partition, accounts: _Slice, outcome: _Outcome, route: Route) -> None:
        assert isinstance(partition.work, Score)
        self.outcome = outcome
        self._store, self._address, self._id_type = Path(store), partition.address, accounts.id_type
        self._scorer = load_scorer(partition.work.bundle, route=route)
        self._n_fallbacks = self._scorer.n_fallbacks
        self._rejects: list[pa.Table] = []
        self._histograms: dict[datetime, Counts] = {}
        self._draft = ParquetDraft(scores_schema(accounts.id_type), self._store, self._address, "scores")

    def __enter__(self) -> Self:
        self._draft.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._draft.__exit__(kind, error, trace)

    def score(self, there: _There) -> None:
        """Score everybody there is to score at an as-of, and write it down."""
        table = _score_as_of(self._id_type, self._scorer, there, self._rejects, self.outcome)
        self._histograms[there.as_of] = histogram(table["score"].to_numpy())
        with self.outcome.timed("write"):
            self._draft.write(table)

    def finish(self) -> None:
        """Prove the scorer once more, and put everything under its final name."""
        outcome, store, address = self.outcome, self._store, self._address
        with outcome.timed("predict"):
            require_riders(self._scorer)
        with outcome.timed("write"):
            written = self._draft.publish(to_footer(self._histograms))
        outcome.outputs.append(written)
        outcome.count("scores", written.n_rows)
        outcome.scorer = self._scorer.name
        if self._scorer.n_fallbacks > self._n_fallbacks:
            outcome.alerts.append("scorer_differs")
        if any(map(len, self._rejects)):
            outcome.outputs.append(write_parquet(self._rejects, rejects_schema(self._id_type), store, address, "rejects"))
        names = sorted(outcome.keys)
        held = pa.table({"name": names, "keys": [str(outcome.keys.pop(name)) for name in names]}, schema=KEYS_SCHEMA)
        outcome.outputs.append(write_parquet([held], KEYS_SCHEMA, store, address, "keys"))


def _guard(accounts: _Slice, as_of: datetime, frame: pa.Table, outcome: _Outcome) -> None:
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


def _score_as_of(id_type: pa.DataType, scorer: Scorer, there: _There, rejects: list[pa.Table], outcome: _Outcome) -> pa.Table:
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
            rejects.append(_rows(as_of, rejected, {"code": pa.repeat(code, len(rejected))}, rejects_schema(id_type)))
            outcome.add_keys("rejected", as_of, rejected)
            outcome.count(f"rejected {code}", len(rejected))
    good = ~(frame.unscorable | invalid)
    ids = ids if good.all() else ids.filter(pa.array(good))
    outcome.add_keys("scored", as_of, ids)
    return _rows(as_of, ids, {"margin": margin[good], "score": score[good]}, scores_schema(id_type))


def _explain(task: Task, work: Reasons, outcome: _Outcome, route: Route) -> None:
    """The features of the flags once more, through the same code; `explain` demands the margins that were scored."""
    decided = flags_of(decided_rows(work.decision, FLAG, RESERVE), work.score)
    accounts = _Slice(task, work.score, outcome, among=decided[ACCOUNT_ID].unique())
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
            explained = explain(scorer, frame, flags["margin"].to_numpy())
        texts = pa.array([REASONS.dump_json(reasons).decode() for reasons in explained], pa.string())
        segments = _segments(accounts.accounts.at(as_of), wanted)
        tables.append(_rows(as_of, flags[ACCOUNT_ID], {"reasons": texts, SEGMENT: segments}, schema))
    outcome.outputs.append(write_parquet(tables, schema, Path(task.store), task.partition.address, "reasons"))


def _reconsider(task: Task, work: Reconsider, outcome: _Outcome, route: Route) -> None:
    """Features of cleared accounts now and as of what they were cleared for, from the same rollups; and their reasons now."""
    asked = flags_of(pq.read_table(verified(work.candidates.path, work.candidates.sha256)), work.score)
    grains = open_feature_set(work.score.feature_set)
    thens = {then for then in asked["then"].to_pylist() if then is not None and grains.is_whole(then)}
    as_ofs = tuple(sorted({*asked["as_of"].to_pylist(), *thens}))
    span = work.score.model_copy(update={"as_ofs": as_ofs, "began": {}})
    accounts = _Slice(task, span, outcome, among=asked[ACCOUNT_ID].unique())
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
            explained = explain(scorer, frame, rows["margin"].to_numpy())
        codes = [[reason.code for reason in reasons if reason.contribution > 0] for reasons in explained]
        now = [_values(frames[as_of], account, work.names) for account in ids]
        before = [
            _values(frames[then], account, work.names) if then in thens else [math.nan] * len(work.names)
            for account, then in zip(ids, rows["then"].to_pylist(), strict=True)
        ]
        columns = {"codes": codes, "names": [list(work.names)] * len(ids), "then": before, "now": now}
        tables.append(_rows(as_of, rows[ACCOUNT_ID], columns, schema))
    outcome.outputs.append(write_parquet(tables, schema, Path(task.store), task.partition.address, "closer_look"))


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


def _rows(as_of: datetime, ids: pa.ChunkedArray, columns: dict[str, object], schema: pa.Schema) -> pa.Table:
    moments = pa.repeat(pa.scalar(as_of, MOMENT), len(ids))
    return pa.table({"as_of": moments, ACCOUNT_ID: ids, **columns}, schema=schema)
