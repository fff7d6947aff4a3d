"""Lays a stage out in partitions, and says what each partition's output depends on: its address. Reads; writes only indexes.

rollup follows from the plan, and from what the freeze (`freeze_layout`) left of live tables. score is laid out once those two are
committed, because its key ranges are cut from what they wrote; reasons once the decision stands. The ledger keeps the layout,
so that a resumed run never cuts again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Final, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.decide.table import EVIDENCE, FLAG, RESERVE, of_standing, whole
from batchscore.features.accounts import Accounts, ordered
from batchscore.features.coverage import begins
from batchscore.features.feature_set import EPOCH, VALID_FROM, VALID_TO, AccountsTable, FeatureSet
from batchscore.features.frame import population
from batchscore.files import named_by_digest, verified, write_named_by_digest
from batchscore.key_index import KeyIndex, corrupt_told, open_index
from batchscore.keys import ACCOUNT_ID, in_range, key_digest
from batchscore.plan import (
    FEATURE_SETS,
    FUNCTION,
    INDEXES,
    FreezeEvents,
    FreezeSql,
    InputFile,
    KeyRange,
    Merge,
    Partition,
    Plan,
    Reasons,
    Reconsider,
    Reference,
    Rollup,
    Score,
    Stage,
)
from batchscore.ports import StoreReader
from batchscore.receipt import Output, Receipt
from batchscore.report.proof import KeysSetAside, keys_from_footer
from batchscore.settings import library_versions
from batchscore.sources.freeze import plan_rollup

EARLIER_RUNS: Final = 8  # whose groups of event files are kept
FLAGS_PER_PARTITION: Final = 500  # of reasons: each flag may cost a row group of its own, read and let go again
RANGES_PER_PARTITION: Final = 16  # of reasons: few flags far apart are read by all workers, and not by one while the others wait
AS_OFS_PER_PARTITION: Final = 32  # windows slide over the rollups once for so many; what an attempt repeats stays bounded
GUARDED_EVERY: Final = 16  # of so many score partitions of a backfill, one is guarded against leaks; the first always is


@dataclass(frozen=True, kw_only=True, slots=True)
class Definitions:
    """What every partition of a run refers to: the store, the feature set (also as a frozen file) and the bundles.

    ``bundle`` flags; ``shadows`` are scored beside it.
    """

    store: Path
    feature_set: FeatureSet
    feature_set_file: Reference
    bundle: Reference
    shadows: tuple[Reference, ...]

    @classmethod
    def of(cls, plan: Plan) -> Definitions:
        """Those of a plan; nothing is written."""
        store = Path(plan.spec.store)
        held = named_by_digest(plan.feature_set.encode(), store / FEATURE_SETS, "json")
        feature_set = FeatureSet.thaw(plan.feature_set)
        bundle, *shadows = plan.bundles
        return cls(store=store, feature_set=feature_set, feature_set_file=held, bundle=bundle, shadows=tuple(shadows))

    def kept(self, plan: Plan) -> Definitions:
        """Keep a copy of the feature set in the store, so that editing the YAML cannot change a run under way."""
        write_named_by_digest(plan.feature_set.encode(), self.store / FEATURE_SETS, "json")
        return self


def lay_out_rollup(
    plan: Plan, definitions: Definitions, earlier: Iterable[Partition], frozen: Mapping[str, Sequence[Output]]
) -> tuple[Partition, ...]:
    """One partition per group of event files; its address holds the partials it makes, not the whole feature set.

    ``frozen``: table → the files that the freeze of a live table left; each is a partition by its bytes, wherever it lies.

    Groups of ``earlier`` runs' rollups, whose files are all still what they were, stay as they are; the files that are left are
    grouped anew. So an appended day is rolled up alone, and a rewritten file takes only its group with it.
    """
    works: list[tuple[Rollup, dict[str, object]]] = []
    of_frozen: list[tuple[Rollup, dict[str, object], int]] = []
    for events in definitions.feature_set.events:
        left = dict.fromkeys(plan.inputs.get(events.table, ()))
        by = plan.spec.gate[events.table].by if events.table in plan.spec.gate else None
        parameters = definitions.feature_set.rollup_parameters(events.table) | ({"by": by} if by else {})
        for partition in earlier:
            held = partition.work
            if (
                isinstance(held, Rollup)
                and held.table == events.table
                and held.files
                and all(file in left for file in held.files)
            ):
                work = held.model_copy(update={"feature_set": definitions.feature_set_file, "by": by})
                reads = what_it_reads(parameters, files=work.files)
                if Partition.of(work, number=0, n_rows=0, reads=reads).address == partition.address:
                    works.append((work, reads))
                    for file in held.files:
                        del left[file]
        new = plan_rollup(tuple(left), events.table, definitions.feature_set_file, by=by)
        works += [(work, what_it_reads(parameters, files=work.files)) for work in new]
        for output in frozen.get(events.table, ()):
            reference = (Reference(path=str(definitions.store / output.path), sha256=output.sha256),)
            live = Rollup(table=events.table, feature_set=definitions.feature_set_file, frozen=reference, by=by)
            of_frozen.append((live, what_it_reads(parameters, frozen=[output.sha256]), output.n_rows))
    works.sort(key=lambda pair: (pair[0].table, pair[0].files[0].path))
    sized = [*((work, reads, n_rows_of_files(work.files)) for work, reads in works), *of_frozen]
    return tuple(
        Partition.of(work, number=number, n_rows=n_rows, reads=reads) for number, (work, reads, n_rows) in enumerate(sized)
    )


def earlier_rollups(reader: StoreReader, run_id: str) -> list[Partition]:
    """The rollup partitions of the newest runs other than ``run_id``, the newest first: what is grouped stays grouped."""
    others = [row.run_id for row in reader.runs(limit=EARLIER_RUNS + 1) if row.run_id != run_id]
    return [partition for other in others[:EARLIER_RUNS] for partition in reader.partitions(other, Stage.ROLLUP)]


def rollups_of(
    partitions: Iterable[Partition], receipts: Iterable[Receipt], role: Literal["rollup", "days"] = "rollup"
) -> dict[str, list[Output]]:
    """Table → the rollups (or the day counts) that a rollup or merge stage wrote of it."""
    table_of = {partition.number: partition.work.table for partition in partitions if isinstance(partition.work, (Rollup, Merge))}
    found: dict[str, list[Output]] = {}
    for receipt in receipts:
        found.setdefault(table_of[receipt.number], []).extend(_outputs([receipt], role))
    return found


def frozen_events(partitions: Iterable[Partition], receipts: Iterable[Receipt]) -> dict[str, list[Output]]:
    """Table → the files that a freeze left of the events of a live table, by range."""
    table_of = {partition.number: partition.work.table for partition in partitions if isinstance(partition.work, FreezeEvents)}
    found: dict[str, list[Output]] = {}
    for receipt in receipts:
        if receipt.number in table_of:
            found.setdefault(table_of[receipt.number], []).extend(_outputs([receipt], "events"))
    return found


def scores_of(partitions: Iterable[Partition], receipts: Iterable[Receipt]) -> dict[datetime, list[Output]]:
    """As-of → the files that hold its scores. A partition serves a few as-ofs of many: no file is opened for the others."""
    as_ofs = {partition.number: partition.work.as_ofs for partition in partitions if isinstance(partition.work, Score)}
    found: dict[datetime, list[Output]] = {}
    for receipt in receipts:
        for as_of in as_ofs[receipt.number]:
            found.setdefault(as_of, []).extend(_outputs([receipt], "scores"))
    return found


def with_merged(
    rollups: Mapping[str, Sequence[Output]], merges: Iterable[Partition], merged: Mapping[str, Sequence[Output]]
) -> dict[str, list[Output]]:
    """The rollups that are to be read: those of the merge stage in the place of those it brought together.

    By path: files of two tables may hold the same bytes.
    """
    gone = {Path(held.path).name for merge in merges if isinstance(merge.work, Merge) for held in merge.work.rollups}
    return {
        table: [*(output for output in outputs if Path(output.path).name not in gone), *merged.get(table, ())]
        for table, outputs in rollups.items()
    }


def lay_out_merge(definitions: Definitions, rollups: Mapping[str, Sequence[Output]]) -> tuple[Partition, ...]:
    """One partition for each closed month, and each day of the two open ones, that has more than one rollup.

    A rollup belongs to the latest moment at which an event of it was known. The open months are that of the latest rollup and
    the one before: late events still come to them. So a score partition opens at most one file for each closed month and 62
    for the open ones, however small the input's files are.
    """
    partitions: list[Partition] = []
    for table, outputs in rollups.items():
        together: dict[str, list[Output]] = {}
        for bucket, output in _buckets(definitions, outputs):
            together.setdefault(bucket, []).append(output)
        parameters = definitions.feature_set.rollup_parameters(table)
        for _, members in sorted(together.items()):
            if len(members) > 1:
                held = tuple(Reference(path=str(definitions.store / one.path), sha256=one.sha256) for one in members)
                work = Merge(table=table, feature_set=definitions.feature_set_file, rollups=held)
                reads = what_it_reads(parameters, rollups=[one.sha256 for one in members])
                n_rows = sum(one.n_rows for one in members)
                partitions.append(Partition.of(work, number=len(partitions), n_rows=n_rows, reads=reads))
    return tuple(partitions)


def _buckets(definitions: Definitions, outputs: Sequence[Output]) -> list[tuple[str, Output]]:
    """Each rollup that has rows, with the day (``2026-01-31``) or closed month (``2026-01``) it belongs to."""
    known: list[tuple[date, Output]] = []
    for output in outputs:
        if output.n_rows:
            with corrupt_told(definitions.store / output.path):
                grains = pq.read_metadata(definitions.store / output.path)
            known.append(((EPOCH + _last_known_grain(grains) * definitions.feature_set.grain).date(), output))
    latest = max((day for day, _ in known), default=date.min)
    open_from = (latest.replace(day=1) - timedelta(days=1)).replace(day=1) if latest > date(1, 2, 1) else date.min
    known.sort(key=lambda pair: (pair[0], pair[1].sha256))
    return [(day.isoformat() if day >= open_from else f"{day:%Y-%m}", output) for day, output in known]


def _last_known_grain(footer: pq.FileMetaData) -> int:
    place = footer.schema.to_arrow_schema().get_field_index("known_grain")  # before any list, so columns are as fields
    groups = [footer.row_group(number).column(place) for number in range(footer.num_row_groups)]
    return max(int(group.statistics.max) for group in groups)


def lay_out_score(
    plan: Plan, definitions: Definitions, frozen: Iterable[Receipt], rollups: Mapping[str, Sequence[Output]]
) -> tuple[Partition, ...]:
    """Key ranges of accounts × groups of as-ofs. ``rollups``: table → the files that hold its events.

    Raises:
        Refused: ``duplicate_id`` when an account stands in two snapshots, ``history_overlap`` when rows of two overlap.
    """
    kind = definitions.feature_set.account_id
    snapshots = KeyIndex.build(definitions.store, kind, _outputs(frozen, "snapshot"))
    ranges = snapshots.cut(plan.spec.partition_rows)
    if snapshots.overlaps:
        _refuse_duplicates(snapshots, [keys for keys, _ in ranges], definitions.feature_set.accounts)
    folder = definitions.store / INDEXES
    snapshot_index = snapshots.save(folder)
    rollup_indexes = {
        events.table: KeyIndex.build(definitions.store, kind, rollups.get(events.table, ())).save(folder)
        for events in definitions.feature_set.events
    }
    as_ofs = plan.spec.as_ofs()
    began = {
        events.table: begins(
            [definitions.store / output.path for output in rollups.get(events.table, ())], as_ofs, definitions.feature_set.grain
        )
        for events in definitions.feature_set.events
    }
    functions = {name: plan.pinned[f"{FUNCTION}{name}"] for name in definitions.feature_set.functions}
    partitions: list[Partition] = []
    for first in range(0, len(as_ofs), AS_OFS_PER_PARTITION):
        group = as_ofs[first : first + AS_OFS_PER_PARTITION]
        for keys, n_rows in ranges:
            work = Score(
                feature_set=definitions.feature_set_file,
                bundle=definitions.bundle,
                snapshots=snapshot_index,
                rollups=rollup_indexes,
                functions=functions,
                keys=keys,
                as_ofs=group,
                began={table: moments[first : first + AS_OFS_PER_PARTITION] for table, moments in began.items()},
                guarded=group[len(group) // 2] if len(as_ofs) > 1 and len(partitions) % GUARDED_EVERY == 0 else None,
            )
            n_scores = n_rows * len(group)
            partitions.append(_score_partition(work, definitions.feature_set, number=len(partitions), n_rows=n_scores))
    return tuple(partitions)


def lay_out_shadow(definitions: Definitions, score: Sequence[Partition]) -> tuple[Partition, ...]:
    """The partitions of score once more for each shadow bundle.

    At the addresses that a run whose bundle flags would give them: a shadow that becomes the bundle is not scored again.
    """
    works = [
        (score_work(partition).model_copy(update={"bundle": shadow}), partition.n_rows)
        for shadow in definitions.shadows
        for partition in score
    ]
    return tuple(
        _score_partition(work, definitions.feature_set, number=number, n_rows=n_rows).model_copy(update={"stage": Stage.SHADOW})
        for number, (work, n_rows) in enumerate(works)
    )


def _score_partition(work: Score, feature_set: FeatureSet, *, number: int, n_rows: int) -> Partition:
    floored = {"began"} if feature_set.coverage is not None else set()
    reads = what_it_reads(
        work.model_dump(mode="json", include={"keys", "as_ofs", "functions", "guarded"} | floored),
        feature_set=work.feature_set.sha256,
        bundles=[work.bundle.sha256],
        snapshots=work.snapshots.sha256,
        rollups={table: index.sha256 for table, index in work.rollups.items()},
    )
    return Partition.of(work, number=number, n_rows=n_rows, reads=reads)


def in_one_pass(partitions: Iterable[Partition], beside: Iterable[Partition] = ()) -> list[tuple[Partition, ...]]:
    """``partitions``, those together that are made of the same features, each with what goes ``beside`` it for that reason.

    Those are scores of the same accounts and as-ofs by different bundles. What goes beside nothing is left out.
    """
    groups: dict[object, list[Partition]] = {}
    for partition in partitions:
        groups.setdefault(_features_of(partition), []).append(partition)
    for partition in beside:
        groups.get(_features_of(partition), []).append(partition)
    return [tuple(group) for group in groups.values()]


def _features_of(partition: Partition) -> object:
    """Equal for partitions that are made of the same features."""
    work = partition.work
    return (work.keys, work.as_ofs) if isinstance(work, Score) else partition.number


def decided_rows(decision: Reference, *standings: str) -> pa.Table:
    """Rows of a frozen decision, whatever release wrote it: those of the ``standings``, or its flags."""
    held = whole(pq.read_table(verified(decision.path, decision.sha256)))
    return of_standing(held, *(standings or (FLAG,)))


def live_table(partition: Partition) -> str | None:
    """The live table that a partition reads; None when it reads none."""
    return partition.work.table if isinstance(partition.work, (FreezeSql, FreezeEvents)) else None


def lay_out_reconsider(score: Sequence[Partition], candidates: Reference, names: tuple[str, ...]) -> tuple[Partition, ...]:
    """Key ranges with accounts to be looked at again, as `lay_out_reasons` cuts them."""
    asked = pq.read_table(verified(candidates.path, candidates.sha256), columns=[ACCOUNT_ID, "as_of"])
    partitions: list[Partition] = []
    for members, n_rows in _together(score, asked):
        reads: dict[str, object] = {
            "score": [member.address for member in members], "candidates": candidates.sha256, "names": list(names)
        }  # fmt: skip
        work = Reconsider(score=_over(members), candidates=candidates, names=names)
        partitions.append(Partition.of(work, number=len(partitions), n_rows=n_rows, reads=reads))
    return tuple(partitions)


def _over(members: Sequence[Partition]) -> Score:
    """One work over the key ranges of some score partitions that follow each other."""
    first, last = score_work(members[0]), score_work(members[-1])
    return first.model_copy(update={"keys": KeyRange(low=first.keys.low, high=last.keys.high)})


def lay_out_reasons(score: Sequence[Partition], decision: Reference) -> tuple[Partition, ...]:
    """Key ranges with flags of the decision, its reserve or evidence: each is explained while the rollups are there.

    Up to `RANGES_PER_PARTITION` score partitions and `FLAGS_PER_PARTITION` flags each.
    """
    decided = decided_rows(decision, FLAG, RESERVE, EVIDENCE).select([ACCOUNT_ID, "as_of"])
    partitions: list[Partition] = []
    for members, n_flags in _together(score, decided):
        work = _over(members)
        reads: dict[str, object] = {"score": [member.address for member in members], "decision": decision.sha256}
        partitions.append(
            Partition.of(Reasons(score=work, decision=decision), number=len(partitions), n_rows=n_flags, reads=reads)
        )
    return tuple(partitions)


def _together(score: Sequence[Partition], decided: pa.Table) -> Iterator[tuple[list[Partition], int]]:
    """Score partitions that hold flags, in groups of the same as-ofs, and how many flags each group holds."""
    group: list[Partition] = []
    n_flags = 0
    for partition in score:
        n_here = len(flags_of(decided, score_work(partition)))
        if not n_here:
            continue
        full = len(group) == RANGES_PER_PARTITION or n_flags + n_here > FLAGS_PER_PARTITION
        if group and (full or score_work(group[-1]).as_ofs != score_work(partition).as_ofs):
            yield group, n_flags
            group, n_flags = [], 0
        group, n_flags = [*group, partition], n_flags + n_here
    if group:
        yield group, n_flags


def score_work(partition: Partition) -> Score:
    """What a partition of scores, or of a shadow's, is to do."""
    assert isinstance(partition.work, Score)
    return partition.work


def flags_of(decided: pa.Table, work: Score) -> pa.Table:
    """The rows of a decision that a score partition made: its key range and its as-ofs."""
    as_ofs = pa.array(work.as_ofs, type=decided.schema.field("as_of").type)
    mask = pc.is_in(decided["as_of"], value_set=as_ofs)
    in_keys = in_range(decided[ACCOUNT_ID], work.keys.low, work.keys.high)
    return decided.filter(mask if in_keys is None else pc.and_(mask, in_keys))


def scored_keys(definitions: Definitions, receipt: Receipt) -> Receipt:
    """A score receipt with the key digests in its file's footer: ``scored 2002-08-19T00:00:00+00:00`` and so on.

    Also ``outside``, ``repeated``, ``unscoreable`` and ``rejected``; a name that is absent is the empty set.
    """
    (output,) = _outputs([receipt], "scores")
    footer = pq.read_metadata(verified(str(definitions.store / output.path), output.sha256)).metadata
    return receipt.model_copy(update={"keys": keys_from_footer(footer)})


def keys_set_aside(definitions: Definitions, work: Score, as_of: datetime) -> KeysSetAside:
    """The keys of a partition's range at ``as_of``, read again: what quarantine sets aside."""
    declared = definitions.feature_set.accounts
    index = open_index(str(definitions.store), definitions.feature_set.account_id, work.snapshots)
    rows = index.read(work.keys, columns=[ACCOUNT_ID, *declared.times])
    accounts = Accounts.of(rows, declared)
    inside = population(accounts.at(as_of), as_of)
    return KeysSetAside(
        planned=key_digest(accounts.ids.filter(pa.array(inside))),
        outside=key_digest(accounts.ids.filter(pa.array(~inside))),
        repeated=key_digest(accounts.repeated),
    )


def _refuse_duplicates(snapshots: KeyIndex, ranges: Iterable[KeyRange], accounts: AccountsTable) -> None:
    """Snapshots are sound each; where their ranges overlap, look across them, a key range at a time."""
    columns = [ACCOUNT_ID, *(name for name in (VALID_FROM, VALID_TO) if name in accounts.times)]
    for keys in ranges:
        ordered(snapshots.read(keys, columns=columns), accounts, where=f"several files of the table {accounts.table}")


def _outputs(receipts: Iterable[Receipt], role: str) -> list[Output]:
    return [output for receipt in receipts for output in receipt.outputs if output.role == role]


def n_rows_of_files(files: Iterable[InputFile]) -> int:
    """Rows of all files, by their footers."""
    return sum(file.n_rows for file in files)


def what_it_reads(parameters: Mapping[str, object], **more: object) -> dict[str, object]:
    """What an address is the digest of: parameters, inputs, and the libraries that decide bits."""
    files = more.get("files")
    if isinstance(files, tuple):
        more["files"] = [file.model_dump(mode="json") for file in files]
    return {**parameters, **more, "libraries": library_versions()}
