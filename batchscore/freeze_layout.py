"""Lays the freeze out: groups of files, ranges of keys of live tables. Looks at a live table's keys; reads no row of it.

Accounts of a live table are never the same input twice, so the address of their ranges holds the run. So does that of a range
of events that may still change. A closed range of events is one input for all runs, and its bounds are kept from run to run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from batchscore.features.tables import EventsTable
from batchscore.layout import Definitions, n_rows_of_files, what_it_reads
from batchscore.plan import FreezeEvents, KeyBound, Partition, Plan, Stage, Work
from batchscore.ports import StoreReader
from batchscore.sources.freeze import live_range
from batchscore.sources.works import freeze_works
from batchscore.spec import SqlSource

_RUNS_LOOKED_AT: Final = 100  # among which the closed ranges of a table are looked for
Closed = Mapping[str, Mapping[KeyBound | None, KeyBound]]
_Part = tuple[Work, int, dict[str, object]]  # a work, about how many rows it has, and what it reads


def lay_out_freeze(plan: Plan, definitions: Definitions, run_id: str, closed: Closed) -> tuple[Partition, ...]:
    """One partition per group of account files, or per range of keys of a live table, up to its largest key as of now.

    ``closed``: events table → its closed ranges (see `closed_ranges`).
    """
    parts = [*_accounts(plan, definitions, run_id)]
    for events in definitions.feature_set.events:
        source = plan.spec.sources[events.table].sql
        if source is not None:
            parts += _events(plan, definitions, events, source, run_id, closed.get(events.table, {}))
    return _numbered(parts)


def lay_out_account_files(plan: Plan, definitions: Definitions) -> tuple[Partition, ...]:
    """Of the freeze, the groups of account files: what can be laid out without a look at a live table."""
    if not plan.inputs.get(definitions.feature_set.accounts.table):
        return ()
    return _numbered(_accounts(plan, definitions, ""))  # of no run: the address of a group of files holds none


def _numbered(parts: Iterable[_Part]) -> tuple[Partition, ...]:
    return tuple(
        Partition.of(work, number=number, n_rows=n_rows, reads=reads) for number, (work, n_rows, reads) in enumerate(parts)
    )


def _accounts(plan: Plan, definitions: Definitions, run_id: str) -> Iterator[_Part]:
    feature_set = definitions.feature_set
    accounts, held, segment, groups = feature_set.accounts, definitions.feature_set_file, plan.spec.segment, plan.spec.groups
    reads = {
        "accounts": accounts.model_dump(mode="json"),
        "columns": feature_set.column_names(accounts.table),
        "kind": feature_set.account_id,
        **({"segment": segment} if segment else {}),
        **({"groups": list(groups)} if groups else {}),
        **({"categories": categories} if (categories := sorted(feature_set.categories.values())) else {}),
    }
    source = plan.spec.sources[accounts.table].sql
    if source is None:
        for work in freeze_works(plan.inputs[accounts.table], accounts.table, held, segment=segment, groups=groups):
            yield work, n_rows_of_files(work.files), what_it_reads(reads, files=work.files)
        return
    from batchscore.sources.sql import key_ranges  # noqa: PLC0415 (SQLAlchemy: workers import this file and lay nothing out)

    ranges = key_ranges(source, accounts, feature_set.account_id)
    for low, high in ranges:
        live = live_range(source, accounts.table, held, (low, high), run_id).model_copy(
            update={"segment": segment, "groups": groups}
        )
        n_rows = -(-plan.n_rows_of(accounts.table) // len(ranges))
        yield live, n_rows, what_it_reads(reads, run=run_id, low=low, high=high)


def _events(
    plan: Plan,
    definitions: Definitions,
    events: EventsTable,
    source: SqlSource,
    run_id: str,
    closed: Mapping[KeyBound | None, KeyBound],
) -> Iterator[_Part]:
    """Ranges of a live table of events. A column that a feature newly reads is another input: each range is read once more."""
    from batchscore.sources.live_events import event_ranges  # noqa: PLC0415 (as in `_accounts`)

    by = plan.spec.gate[events.table].by if events.table in plan.spec.gate else None
    reads: dict[str, object] = {
        "events": events.model_dump(mode="json", include={"key", "event_at", "known_at", "skew"}),
        "columns": definitions.feature_set.column_names(events.table),
        "kind": definitions.feature_set.account_id,
        "source": source.model_dump(mode="json", exclude={"gentle", "reread"}),
        **({"by": by} if by else {}),
    }
    ranges = event_ranges(source, events, closed)
    for found in ranges:
        work = FreezeEvents(
            table=events.table,
            feature_set=definitions.feature_set_file,
            source=source,
            low=found.low,
            high=found.high,
            closed=found.closed,
            by=by,
        )
        opened_for = {} if found.closed else {"run": run_id}
        yield (
            work,
            -(-plan.n_rows_of(events.table) // len(ranges)),
            what_it_reads(reads, low=found.low, high=found.high, **opened_for),
        )


def closed_ranges(plan: Plan, reader: StoreReader, run_id: str) -> Closed:
    """Events table → the closed ranges of its newest layout in runs other than ``run_id``, each by its low.

    Closed once is closed for ever: nothing is looked up again.
    """
    wanted = {table: source.sql for table, source in plan.spec.sources.items() if source.sql is not None and source.sql.key}
    found: dict[str, dict[KeyBound | None, KeyBound]] = {}
    for row in reader.runs(limit=_RUNS_LOOKED_AT):
        if row.run_id == run_id or wanted.keys() <= found.keys():
            continue
        for partition in reader.partitions(row.run_id, Stage.FREEZE):
            work = partition.work
            if not isinstance(work, FreezeEvents) or not work.closed or work.high is None or work.table not in wanted:
                continue
            if _is_same(wanted[work.table], work.source):
                found.setdefault(work.table, {}).setdefault(work.low, work.high)
    return found


def _is_same(one: SqlSource, other: SqlSource) -> bool:
    return (one.url, one.table, one.key) == (other.url, other.table, other.key)
