"""Lays out score and shadow: key ranges of accounts and groups of as-ofs, cut from what freeze and rollup wrote."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from batchscore.features.accounts import ordered
from batchscore.features.coverage import begins
from batchscore.features.feature_set import FeatureSet
from batchscore.features.tables import VALID_FROM, VALID_TO, AccountsTable
from batchscore.key_index import KeyIndex
from batchscore.keys import ACCOUNT_ID
from batchscore.layout.definitions import Definitions, what_it_reads
from batchscore.layout.left import outputs_of, score_work
from batchscore.plan import FUNCTION, INDEXES, KeyRange, Partition, Plan, Score, Stage
from batchscore.receipt import Output, Receipt

AS_OFS_PER_PARTITION: Final = 32  # windows slide over the rollups once for so many; what an attempt repeats stays bounded
GUARDED_EVERY: Final = 16  # of so many score partitions of a backfill, one is guarded against leaks; the first always is


def lay_out_score(
    plan: Plan, definitions: Definitions, frozen: Iterable[Receipt], rollups: Mapping[str, Sequence[Output]]
) -> tuple[Partition, ...]:
    """Key ranges of accounts × groups of as-ofs. ``rollups``: table → the files that hold its events.

    Raises:
        Refused: ``duplicate_id`` when an account stands in two snapshots, ``history_overlap`` when rows of two overlap.
    """
    kind = definitions.feature_set.account_id
    snapshots = KeyIndex.build(definitions.store, kind, outputs_of(frozen, "snapshot"))
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


def _refuse_duplicates(snapshots: KeyIndex, ranges: Iterable[KeyRange], accounts: AccountsTable) -> None:
    """Snapshots are sound each; where their ranges overlap, look across them, a key range at a time."""
    columns = [ACCOUNT_ID, *(name for name in (VALID_FROM, VALID_TO) if name in accounts.times)]
    for keys in ranges:
        ordered(snapshots.read(keys, columns=columns), accounts, where=f"several files of the table {accounts.table}")
