"""Decides once per run, and freezes what it saw and what it chose: the memory and the decision, each a file named by digest.

The choosing itself is pure and lives in `decide`. Resume, release, undo, verify and explain read these two files; none of
them decides again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.decide.again import MOST_LOOKED_AT, CloserLook, closer_looks_in
from batchscore.decide.best import best_of
from batchscore.decide.memory import Memory, Moment, read_of, remember
from batchscore.decide.table import EVIDENCE, FLAG, RESERVE, of_standing
from batchscore.decide.tiers import lowest_threshold
from batchscore.decide.top import Question, Told, decide_dates, to_metadata
from batchscore.failpoints import Point, reach
from batchscore.features.accounts import Accounts
from batchscore.files import open_verified, parquet_bytes, verified, write_named_by_digest
from batchscore.flag import GROUP_CHARS, SINCE_CHARS, WrittenFlag
from batchscore.key_index import open_index
from batchscore.keys import ACCOUNT_ID, ID_TYPES, MOMENT, sort_by_key
from batchscore.layout import Definitions, decided_rows, scores_of
from batchscore.plan import DECISIONS, KeyRange, Partition, Plan, Reference, Score, Stage
from batchscore.policy import Policy
from batchscore.ports import MemoryRead, RunRow, StoreReader
from batchscore.receipt import Output, Receipt
from batchscore.sources.groups import groups_beside, read_groups
from batchscore.sources.segment import frozen_names

_FLAGS_AT_ONCE: Final = 1_000
_READERS: Final = 2  # threads; more wait for memory, and each file ahead is held
_READ_AHEAD: Final = 4  # files
_SCORES: Final = [ACCOUNT_ID, "score", "margin"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """Where the decision and the memory lie, and how many flags it holds.

    Columns of the decision: those of `decide.table.decision_schema`, and release (bool: this flag goes to the reviewers).
    """

    file: Reference
    memory: Reference
    n_selected: int
    n_to_release: int


def make_decision(plan: Plan, definitions: Definitions, reader: StoreReader, row: RunRow) -> Decision:
    """Decide every as-of of the run and write both files."""
    memory = _memory(plan, definitions, reader, row)
    decided = decided_by(plan, question_of(plan, definitions, reader, row.run_id, memory))
    folder = definitions.store / DECISIONS
    file = write_named_by_digest(parquet_bytes(decided), folder, "parquet")
    reach(Point.DECISION_WRITTEN)
    remembered = write_named_by_digest(parquet_bytes(memory), folder, "parquet")
    reach(Point.DECISION_UNRECORDED)
    flags = of_standing(decided, FLAG)
    return Decision(
        file=file,
        memory=remembered,
        n_selected=len(flags),
        n_to_release=int(pc.sum(flags["release"]).as_py() or 0),
    )


def question_of(
    plan: Plan, definitions: Definitions, reader: StoreReader, run_id: str, memory: pa.Table, policy: Policy | None = None
) -> Question:
    """What decide is asked for a run whose scores are committed; ``policy``: another than the plan's."""
    laid_out = reader.partitions(run_id, Stage.SCORE)
    scores = scores_of(laid_out, reader.receipts(run_id, Stage.SCORE))
    looked_at = tuple(reader.receipts(run_id, Stage.RECONSIDER))
    return Question(
        policy=policy or plan.spec.policy,
        memory=memory,
        scores=lambda as_of: read_scores(definitions.store, scores.get(as_of, ()), as_of),
        groups=_groups(plan, definitions, laid_out, groups_beside(reader.receipts(run_id, Stage.FREEZE))),
        closer_looks=lambda as_of: found_closer(definitions, looked_at, as_of),
        segment=plan.spec.segment,
        seed=plan.digest,
    )


def to_reconsider(plan: Plan, definitions: Definitions, reader: StoreReader, row: RunRow) -> Reference:
    """The accounts that were cleared and whose scores would flag them again, of each as-of the best: what to look closer at.

    A file of account_id, as_of, margin and then (the as-of of the evidence that was cleared).
    """
    policy, spec = plan.spec.policy, plan.spec
    memory = _memory(plan, definitions, reader, row)
    asked = question_of(plan, definitions, reader, row.run_id, memory)
    tables = []
    for as_of in spec.as_ofs():
        at = Moment(as_of=as_of, released=spec.release == "latest" and as_of == spec.as_ofs()[-1])
        cleared = Memory(memory, at).cleared_after(policy.cool_down)
        ids = pa.array(cleared[ACCOUNT_ID].to_pylist(), asked.id_type)
        among = (table.filter(pc.is_in(table[ACCOUNT_ID], value_set=ids)) for table in asked.scores(as_of))
        found = best_of(among, MOST_LOOKED_AT, lowest_threshold(policy), asked.id_type).table
        then = cleared["as_of"].take(pc.index_in(found[ACCOUNT_ID], value_set=ids).combine_chunks())
        moments = pa.repeat(pa.scalar(as_of, MOMENT), len(found))
        margins = found["margin"].cast(pa.float32())
        tables.append(pa.table({ACCOUNT_ID: found[ACCOUNT_ID], "as_of": moments, "margin": margins, "then": then}))
    payload = parquet_bytes(pa.concat_tables(tables).combine_chunks())
    return write_named_by_digest(payload, definitions.store / DECISIONS, "parquet")


def _memory(plan: Plan, definitions: Definitions, reader: StoreReader, row: RunRow) -> pa.Table:
    queue = plan.spec.policy.queue
    read = MemoryRead(reader.clock(), reader.newest_event())  # before the rest: what comes meanwhile may be seen, or not
    past, suppressions = reader.past_columns(queue, but_not_of=row), reader.suppressions(queue)
    return remember(past, suppressions, ID_TYPES[definitions.feature_set.account_id], read)


def found_closer(definitions: Definitions, receipts: Iterable[Receipt], as_of: datetime) -> dict[int | str, CloserLook]:
    """What `reconsider` found of cleared accounts at an as-of."""
    found: dict[int | str, CloserLook] = {}
    for receipt in receipts:
        for output in receipt.outputs:
            path = verified(str(definitions.store / output.path), output.sha256)
            found |= closer_looks_in(pq.read_table(path, filters=[("as_of", "=", pa.scalar(as_of, MOMENT))]))
    return found


def decided_by(plan: Plan, asked: Question) -> pa.Table:
    """What the policy says of those scores, given that memory: a decision's table. Writes nothing."""
    spec = plan.spec
    latest = spec.as_ofs()[-1] if spec.release == "latest" else None
    tables: list[pa.Table] = []
    told: dict[datetime, Told] = {}
    for as_of, decided in decide_dates(asked, spec.as_ofs(), release=spec.release):
        told[as_of] = decided.told
        released = pc.and_(pc.equal(decided.table["standing"], FLAG), pa.scalar(as_of == latest))
        tables.append(decided.table.append_column("release", released))
    return pa.concat_tables(tables).combine_chunks().replace_schema_metadata(to_metadata(told))


def flags_to_release(row: RunRow, definitions: Definitions, explained: Iterable[Receipt]) -> Iterator[WrittenFlag]:
    """The flags of the released as-of in key order, with their reasons; nothing when the run releases nothing."""
    assert row.decision is not None, "a run is released after it has decided"
    decided = decided_rows(row.decision)
    return flags_of_rows(decided.filter(decided["release"]), row, definitions, explained)


def evidence_to_release(row: RunRow, definitions: Definitions, explained: Iterable[Receipt]) -> Iterator[WrittenFlag]:
    """What the run says of flags that stood when it decided, in key order: the store holds it against what stands by then.

    Also what moved too little to be new: it may be, once an undo takes away what it is little beside.
    """
    assert row.decision is not None, "a run is released after it has decided"
    return flags_of_rows(decided_rows(row.decision, EVIDENCE), row, definitions, explained)


def memory_read(row: RunRow) -> MemoryRead | None:
    """When the run read the memory that it decided by; None for a run of an earlier release."""
    assert row.memory is not None, "memory is recorded with the decision"
    with open_verified(row.memory.path, row.memory.sha256) as stream:
        return read_of(pq.read_schema(stream))


def reserve_of(row: RunRow) -> pa.Table:
    """What the decision keeps in reserve for the released as-of, by rank; nothing when the run releases nothing."""
    assert row.decision is not None, "asked for once the run has decided"
    kept = decided_rows(row.decision, RESERVE)
    latest = pa.scalar(row.plan.spec.as_ofs()[-1], MOMENT)
    kept = kept.filter(pc.equal(kept["as_of"], latest))
    return kept.sort_by("rank") if row.plan.spec.release == "latest" else kept.slice(0, 0)


def flags_of_rows(
    decided: pa.Table, row: RunRow, definitions: Definitions, explained: Iterable[Receipt]
) -> Iterator[WrittenFlag]:
    """Rows of a decision, of one as-of, as flags in key order."""
    if not len(decided):
        return
    decided = sort_by_key(decided)
    reasons = _Reasons(definitions, explained, decided["as_of"][0])
    queue, digest, as_of = row.plan.spec.policy.queue, definitions.bundle.sha256, decided["as_of"][0].as_py()
    names = [ACCOUNT_ID, "rank", "score", "margin", "group", "since", "second_reviewer", "domain", "segment"]
    for batch in decided.select(names).to_batches(max_chunksize=_FLAGS_AT_ONCE):
        for account_id, rank, score, margin, group, since, second, *place in zip(*batch.to_pydict().values(), strict=True):
            yield WrittenFlag(
                queue=queue,
                account_id=account_id,
                run_id=row.run_id,
                as_of=as_of,
                rank=rank,
                score=float(score),
                margin=float(margin),
                reasons_json=reasons.of(account_id),
                bundle_digest=digest,
                group=(group or "")[:GROUP_CHARS],
                since=(since or "")[:SINCE_CHARS],
                second_reviewer=second,
                domain=place[0],
                segment=place[1],
            )


def read_scores(store: Path, files: Iterable[Output], as_of: datetime) -> Iterator[pa.Table]:
    """The scores of one as-of, a file at a time and in order; the next few are read meanwhile."""

    def read(output: Output) -> pa.Table:
        with open_verified(str(store / output.path), output.sha256) as stream:
            return _scores_in(stream, as_of)

    with ThreadPoolExecutor(_READERS) as pool:
        ahead: deque[Future[pa.Table]] = deque()
        try:
            for output in files:
                ahead.append(pool.submit(read, output))
                if len(ahead) > _READ_AHEAD:
                    yield from filter(len, [ahead.popleft().result()])
            while ahead:
                yield from filter(len, [ahead.popleft().result()])
        finally:
            for waiting in ahead:
                waiting.cancel()


def _scores_in(stream: pa.NativeFile, as_of: datetime) -> pa.Table:
    """Of one file; rows of an as-of lie together, so row groups without it are not read."""
    moment = pa.scalar(as_of, MOMENT)
    with pq.ParquetFile(stream) as file:
        at = file.schema_arrow.names.index("as_of")
        spans = [file.metadata.row_group(number).column(at).statistics for number in range(file.metadata.num_row_groups)]
        holding = [
            number for number, span in enumerate(spans) if span is None or not span.has_min_max or span.min <= as_of <= span.max
        ]
        is_alone = all(spans[number] is not None and spans[number].min == spans[number].max for number in holding)
        table = file.read_row_groups(holding, columns=_SCORES if is_alone else ["as_of", *_SCORES], use_threads=False)
    if not is_alone:
        table = table.filter(pc.equal(table["as_of"], moment)).drop_columns(["as_of"])
    return table.select(_SCORES).replace_schema_metadata(None)  # a file's histograms are its own: equal decisions are equal bytes


def _groups(
    plan: Plan, definitions: Definitions, laid_out: Sequence[Partition], files: Sequence[Output] | None
) -> Callable[[datetime, pa.Array], pa.Table] | None:
    """(as-of, accounts) → their groups by the names of the spec; None where the spec names none.

    They are read from the ``files`` of groups; where these are None, from the snapshots, which hold the same.
    """
    names = frozen_names(plan.spec.segment, plan.spec.groups)
    works = [partition.work for partition in laid_out if isinstance(partition.work, Score)]
    if not names or not works:
        return None
    declared = definitions.feature_set.accounts
    snapshots = open_index(str(definitions.store), definitions.feature_set.account_id, works[0].snapshots)
    frozen = {column: name for column, name in names.items() if name in snapshots.schema.names}
    columns = [ACCOUNT_ID, *declared.times, *frozen.values()]

    def read(as_of: datetime, accounts: pa.Array) -> pa.Table:
        if files is None:
            found = snapshots.read(KeyRange(), columns=columns, among=accounts)
        else:
            found = read_groups(definitions.store, files, columns, accounts)
        held = Accounts.of(found, declared)
        rows = held.at(as_of)
        return pa.table({ACCOUNT_ID: held.ids} | {column: rows[name].cast(pa.string()) for column, name in frozen.items()})

    return read


class _Reasons:
    """Why accounts were flagged at an as-of, as JSON. Asked in key order, which is the files', it holds one file at a time."""

    def __init__(self, definitions: Definitions, explained: Iterable[Receipt], as_of: pa.Scalar) -> None:
        self._as_of = as_of
        self._files = (
            verified(str(definitions.store / output.path), output.sha256) for receipt in explained for output in receipt.outputs
        )
        self._read: dict[Any, str] = {}

    def of(self, account_id: Any) -> str:
        """The account's reasons, once. Raises KeyError when no file has them."""
        while account_id not in self._read:
            path = next(self._files, None)
            if path is None:
                raise KeyError
            with pq.ParquetFile(path) as file:
                table = file.read(columns=["as_of", ACCOUNT_ID, "reasons"], use_threads=False)
            table = table.filter(pc.equal(table["as_of"], self._as_of))
            self._read.update(zip(table[ACCOUNT_ID].to_pylist(), table["reasons"].to_pylist(), strict=True))
        return self._read.pop(account_id)
