"""Lays out rollup and merge: which event files are rolled up together, and which rollups are brought into one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Final

import pyarrow.parquet as pq

from batchscore.features.definitions import EPOCH
from batchscore.key_index import corrupt_told
from batchscore.layout.definitions import Definitions, what_it_reads
from batchscore.plan import InputFile, Merge, Partition, Plan, Reference, Rollup, Stage
from batchscore.ports import StoreReader
from batchscore.receipt import Output
from batchscore.sources.works import rollup_works

_RUNS_GROUPED: Final = 8  # whose groups of event files are kept


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
            if not isinstance(held, Rollup) or held.table != events.table or not held.files:
                continue
            if any(file not in left for file in held.files):
                continue
            work = held.model_copy(update={"feature_set": definitions.feature_set_file, "by": by})
            reads = what_it_reads(parameters, files=work.files)
            if Partition.of(work, number=0, n_rows=0, reads=reads).address == partition.address:
                works.append((work, reads))
                for file in held.files:
                    del left[file]
        new = rollup_works(tuple(left), events.table, definitions.feature_set_file, by=by)
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
    others = [row.run_id for row in reader.runs(limit=_RUNS_GROUPED + 1) if row.run_id != run_id]
    return [partition for other in others[:_RUNS_GROUPED] for partition in reader.partitions(other, Stage.ROLLUP)]


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


def n_rows_of_files(files: Iterable[InputFile]) -> int:
    """Rows of all files, by their footers."""
    return sum(file.n_rows for file in files)
