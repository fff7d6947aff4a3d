"""Brings accounts into snapshots, and gives the events of a work in canonical batches.

A snapshot is a file of accounts sorted by id, of a history then by when each row begins. An input larger than a *portion* is
written as several of them, so memory is bounded by the portion, not by the input; the key index brings them together again on
reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.digest import KeyDigest
from batchscore.drafts import Drafts
from batchscore.errors import PartitionError
from batchscore.features.accounts import ordered
from batchscore.features.feature_set import FeatureSet
from batchscore.features.tables import AccountsTable, EventsTable, TimeColumn
from batchscore.files import verified
from batchscore.keys import ACCOUNT_ID, ID_TYPES, key_digest
from batchscore.plan import FreezeEvents, FreezeParquet, FreezeSql, InputFile, KeyBound, Reference, Rollup
from batchscore.report.proof import ACCOUNTS
from batchscore.sources.brake import Brake
from batchscore.sources.canonical import REJECTS, Place, Rows, canonical_accounts, canonical_events
from batchscore.sources.groups import write_groups
from batchscore.sources.parquet import read_batches
from batchscore.sources.segment import SEGMENT, frozen_names, segment_names
from batchscore.spec import Gentle, SqlSource

PORTION_ROWS: Final = 1_000_000
PORTION_BYTES: Final = 256 << 20

Frozen = tuple[dict[str, int], dict[str, KeyDigest]]  # counts, and what is in the snapshots


def freeze_parquet(work: FreezeParquet, drafts: Drafts, feature_set: FeatureSet) -> Frozen:
    """The accounts of the work's files as snapshots: (counts, key digests).

    Raises:
        Refused: ``duplicate_id``, ``history_overlap``, ``id_physical_type`` or ``column_type``.
        PartitionError: a file is not what was planned, or does not decode.
    """
    accounts, columns = feature_set.accounts, feature_set.column_names(feature_set.accounts.table)
    named = frozen_names(work.segment, work.groups)
    rows = _canonical(_numbered(work.files, _raw_columns(accounts, [*columns, *named])), feature_set, named)
    return _write_snapshots(rows, drafts, feature_set, named, f"{len(work.files)} files, first {work.files[0].path}")


def live_source(work: FreezeSql | FreezeEvents, gentle: Gentle) -> SqlSource:
    """The table that ``work`` reads."""
    if isinstance(work, FreezeEvents):
        return work.source.model_copy(update={"gentle": gentle})
    return SqlSource(url=work.url, table=work.sql_table, key=work.key, id_cast=work.id_cast, where=work.where, gentle=gentle)


def freeze_sql(work: FreezeSql, drafts: Drafts, feature_set: FeatureSet, brake: Brake) -> Frozen:
    """The accounts of a live table as snapshots, read once within the work's bounds; as `freeze_parquet` otherwise.

    ``brake``: of the same source; between two pages reading waits until it lets go.

    Raises:
        Paused: it did not.
    """
    from batchscore.sources.sql import read_pages  # noqa: PLC0415 (SQLAlchemy: a worker that reads Parquet does without)

    accounts, columns = feature_set.accounts, feature_set.column_names(feature_set.accounts.table)
    categories = tuple(feature_set.categories.values())
    bounds = work.low, work.high
    named = frozen_names(work.segment, work.groups)
    pages = read_pages(brake.source, accounts, columns, feature_set.account_id, bounds, tuple(named), categories=categories)
    rows = _canonical(_braked(pages, brake), feature_set, named)
    return _write_snapshots(rows, drafts, feature_set, named, f"table {work.sql_table}")


def freeze_events(work: FreezeEvents, drafts: Drafts, feature_set: FeatureSet, brake: Brake) -> Frozen:
    """The canonical events of a range of a live table, in order of their append keys; as `freeze_sql` otherwise.

    The column that the work counts by stands beside the others as `SEGMENT`. Of accounts it froze none.
    """
    from batchscore.sources.live_events import read_event_pages  # noqa: PLC0415 (as in `freeze_sql`)

    events, columns = feature_set.events_table(work.table), feature_set.column_names(work.table)
    raw = _braked(read_event_pages(brake.source, events, columns, (work.low, work.high), work.by), brake)
    rejects: list[pa.Table] = []
    counts: dict[str, int] = {}
    for rows in _canonical_events(raw, feature_set, work, columns):
        drafts.write_parquet([rows.table], rows.table.schema, "events")
        counts["rows"] = counts.get("rows", 0) + len(rows.table) + len(rows.rejects)
        rejects.append(rows.rejects)
    write_rejects(rejects, drafts, counts)
    return counts, {ACCOUNTS: KeyDigest()}


def _canonical_events(
    raw: Iterator[tuple[pa.Table, Place]], feature_set: FeatureSet, work: Rollup | FreezeEvents, columns: tuple[str, ...]
) -> Iterator[Rows]:
    """Canonical events in batches of about `PORTION_ROWS`, with the column that the work counts by under a name of ours."""
    events = feature_set.events_table(work.table)
    if work.by is not None:
        raw, columns = _named(raw, work.by), (*columns, SEGMENT)
    return _one_at_a_time(canonical_events(batch, events, columns, feature_set.account_id, place) for batch, place in raw)


def _braked(pages: Iterator[tuple[pa.Table, Place]], brake: Brake) -> Iterator[tuple[pa.Table, Place]]:
    while True:
        brake.let_through()
        page = next(pages, None)
        if page is None:
            return
        yield page


def live_range(
    source: SqlSource,
    table: str,
    feature_set: Reference,
    bounds: tuple[KeyBound | None, KeyBound | None],
    opened_for: str,
) -> FreezeSql:
    """The work that reads one range of the accounts table ``table``; no groups, which a run's spec may name."""
    return FreezeSql(
        table=table,
        feature_set=feature_set,
        url=source.url,
        sql_table=source.table,
        key=source.key,
        id_cast=source.id_cast,
        where=source.where,
        low=bounds[0],
        high=bounds[1],
        opened_for=opened_for,
    )


def _canonical(raw: Iterable[tuple[pa.Table, Place]], feature_set: FeatureSet, named: Mapping[str, str]) -> Iterator[Rows]:
    """Canonical accounts of each batch, with the groups they are in under names of ours (``named``)."""
    accounts, columns = feature_set.accounts, feature_set.column_names(feature_set.accounts.table)
    for raw_batch, place in raw:
        batch = raw_batch
        for column, name in named.items():
            batch = batch.append_column(name, segment_names(raw_batch[column], f"{place.source}: {column}"))
        yield canonical_accounts(batch, accounts, [*columns, *named.values()], feature_set.account_id, place)


def read_events(work: Rollup, feature_set: FeatureSet, only: Sequence[str] | None = None) -> Iterator[Rows]:
    """Canonical events of the work, in batches of about `PORTION_ROWS`, each with its rejects; frozen ones as they are.

    At least one batch comes, empty if need be, so that the schema is known. The column that the work counts by stands beside
    the others as `SEGMENT`. ``only``: of the columns that features read, those; others are not read from the files.
    """
    if work.frozen:
        return (_held(reference) for reference in work.frozen)
    events, columns = feature_set.events_table(work.table), feature_set.column_names(work.table)
    columns = columns if only is None else tuple(name for name in columns if name in only)
    raw = _numbered(work.files, _raw_columns(events, [*columns, *([work.by] if work.by else [])]))
    return _canonical_events(raw, feature_set, work, columns)


def _held(reference: Reference) -> Rows:
    """Events as a freeze left them; what it rejected, it told."""
    path = verified(reference.path, reference.sha256)
    try:
        return Rows(pq.read_table(path).replace_schema_metadata(None), REJECTS.empty_table())
    except (OSError, pa.ArrowException) as error:
        raise PartitionError("input_corrupt", "a page does not decode", where=path.name, remedy="restore the file") from error


def _named(raw: Iterable[tuple[pa.Table, Place]], by: str) -> Iterator[tuple[pa.Table, Place]]:
    for batch, place in raw:
        yield batch.append_column(SEGMENT, segment_names(batch[by], f"{place.source}: {by}")), place


def empty_events(file: InputFile, table: str, feature_set: FeatureSet) -> pa.Table:
    """What `read_events` gives of a file, without rows: the types alone; its footer is all that is read."""
    events, columns = feature_set.events_table(table), feature_set.column_names(table)
    stored = pq.read_schema(Path(file.root) / file.path).remove_metadata()
    batch = pa.schema([stored.field(name) for name in _raw_columns(events, columns)]).empty_table()
    return canonical_events(batch, events, columns, feature_set.account_id, Place(file.path)).table


def _raw_columns(table: AccountsTable | EventsTable, columns: Iterable[str]) -> list[str]:
    times = [table.event_at, table.known_at] if isinstance(table, EventsTable) else table.times.values()
    return list(dict.fromkeys([table.key, *(time.column for time in times if isinstance(time, TimeColumn)), *columns]))


def _numbered(files: Iterable[InputFile], columns: list[str]) -> Iterator[tuple[pa.Table, Place]]:
    """Batches of all files, each with its place; a file without rows gives one empty batch, for its schema."""
    for file in files:
        at = 0
        for batch in read_batches(file, columns):
            yield batch, Place(file.path, at)
            at += len(batch)


def _portions(rows: Iterable[Rows]) -> Iterator[list[Rows]]:
    """Batches gathered until a portion is full."""
    portion: list[Rows] = []
    n_rows = n_bytes = 0
    for batch in rows:
        portion.append(batch)
        n_rows, n_bytes = n_rows + len(batch.table), n_bytes + batch.table.nbytes
        if n_rows >= PORTION_ROWS or n_bytes >= PORTION_BYTES:
            yield portion
            portion, n_rows, n_bytes = [], 0, 0
    if portion:
        yield portion


def _one_at_a_time(rows: Iterable[Rows]) -> Iterator[Rows]:
    """Each portion joined, and let go of before the next is gathered."""
    portions = _portions(rows)
    while (portion := next(portions, None)) is not None:
        joined = _joined(portion)
        portion.clear()
        yield joined
        del joined


def _joined(portion: list[Rows]) -> Rows:
    table = pa.concat_tables([rows.table for rows in portion], promote_options="permissive")
    return Rows(table, pa.concat_tables([rows.rejects for rows in portion]))


def _write_snapshots(
    rows: Iterable[Rows], drafts: Drafts, feature_set: FeatureSet, named: Mapping[str, str], source: str
) -> Frozen:
    """``named``: of `frozen_names`; where there are any, a file of groups stands beside each snapshot."""
    rejects: list[pa.Table] = []
    keys = KeyDigest()
    counts: dict[str, int] = {}
    for portion in _portions(rows):
        joined = _joined(portion)
        table = ordered(joined.table, feature_set.accounts, where=source)  # in chunks: what is in order already is not copied
        drafts.write_parquet([table], table.schema, "snapshot")
        if named:
            write_groups(table, feature_set.accounts, named.values(), drafts)
        keys = keys + key_digest(table[ACCOUNT_ID])
        counts["rows"] = counts.get("rows", 0) + len(table) + len(joined.rejects)
        rejects.append(joined.rejects)
    if "rows" not in counts:  # nothing came, not even an empty batch
        drafts.write_parquet([], _empty_schema(feature_set), "snapshot")
    write_rejects(rejects, drafts, counts)
    return counts, {ACCOUNTS: keys}


def write_rejects(rejects: Sequence[pa.Table], drafts: Drafts, counts: dict[str, int]) -> None:
    """Write the rejects as one file, if there are any, and count them by code into ``counts``."""
    joined = pa.concat_tables([REJECTS.empty_table(), *rejects])
    for code in joined["code"].to_pylist():
        counts[f"rejected {code}"] = counts.get(f"rejected {code}", 0) + 1
    if len(joined):
        drafts.write_parquet([joined], REJECTS, "rejects")


def _empty_schema(feature_set: FeatureSet) -> pa.Schema:
    """The least a snapshot without rows needs; types of columns nobody has seen are null."""
    accounts = feature_set.accounts
    return pa.schema(
        [
            (ACCOUNT_ID, ID_TYPES[feature_set.account_id]),
            *((name, pa.timestamp("us", "UTC")) for name in accounts.times),
            *((name, pa.null()) for name in feature_set.column_names(accounts.table)),
        ]
    )
