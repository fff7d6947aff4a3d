"""The inputs of a plan: which files there are, what live tables look like, and whether columns can be used as declared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from batchscore.errors import Problem, Refused, TryAgain
from batchscore.features.feature_set import FeatureSet
from batchscore.features.rollup_columns import check_measures
from batchscore.features.tables import AccountsTable, EventsTable
from batchscore.plan import InputFile
from batchscore.sources.live_events import inspect_events
from batchscore.sources.parquet_columns import check_schema, holds_id_above, unified_schema
from batchscore.sources.parquet_files import list_inputs
from batchscore.sources.segment import segment_problems_of_files
from batchscore.sources.sql import inspect_table
from batchscore.spec import RunSpec, SqlSource
from batchscore.store.rows import LARGEST_IN_SQLITE


def read_inputs(
    spec: RunSpec, feature_set: FeatureSet
) -> tuple[dict[str, tuple[InputFile, ...]], tuple[str, ...], dict[str, str | int]]:
    """(files by table, names passed over, what was observed of a live table); reads names, footers and a table's shape.

    Raises:
        Refused: files or columns that cannot be used as the feature set declares them, all together.
    """
    inputs: dict[str, tuple[InputFile, ...]] = {}
    passed_over: list[str] = []
    observed: dict[str, str | int] = {}
    problems: list[Problem] = []
    tables: list[AccountsTable | EventsTable] = [feature_set.accounts, *feature_set.events]
    for table in tables:
        source = spec.sources[table.table]
        if source.parquet is not None:
            files, hidden = list_inputs(Path(source.parquet.path))
            inputs[table.table] = files
            passed_over += [f"{table.table}/{name}" for name in hidden]
            problems += _problems_of_files(files, table, feature_set)
            problems += _problem_of_large_ids(spec, files, table, feature_set)
            for column in spec.group_columns if isinstance(table, AccountsTable) else ():
                problems += segment_problems_of_files(files, column, table.table)
            if (gate := spec.gate.get(table.table)) is not None and gate.by is not None:
                problems += segment_problems_of_files(files, gate.by, table.table)
        elif source.sql is not None:
            seen, wrong = _inspect(source.sql, table, spec, feature_set)
            observed |= seen
            problems += wrong
    if problems:
        reason = problems[0].what.partition(":")[0]
        raise Refused(
            _known_reason(reason),
            f"{len(problems)} column(s) cannot be used as declared",
            where="inputs",
            problems=tuple(problems),
            remedy="mend the files, or what the feature set says of them",
        )
    return inputs, tuple(passed_over), observed


def _inspect(
    source: SqlSource, table: AccountsTable | EventsTable, spec: RunSpec, feature_set: FeatureSet
) -> tuple[dict[str, str | int], tuple[Problem, ...]]:
    """What is observed of a live table, and what is wrong with it."""
    try:
        if isinstance(table, EventsTable):
            gate = spec.gate.get(table.table)
            return inspect_events(source, table, feature_set, None if gate is None else gate.by)
        columns, categories = feature_set.column_names(table.table), tuple(feature_set.categories.values())
        return inspect_table(source, table, columns, spec.group_columns, categories, feature_set.account_id)
    except TryAgain as error:  # there is no run yet that could wait for it
        remedy = "start the database or correct its URL, then plan again"
        raise Refused(error.reason, error.what, where=error.where, remedy=remedy) from None


def _problems_of_files(files: Sequence[InputFile], table: AccountsTable | EventsTable, feature_set: FeatureSet) -> list[Problem]:
    columns = feature_set.column_names(table.table)
    categories = feature_set.categories.values() if isinstance(table, AccountsTable) else ()
    problems = list(check_schema(files, table, columns, feature_set.account_id, tuple(categories)))
    if not problems and isinstance(table, EventsTable):
        problems += check_measures(feature_set, table.table, unified_schema(files, columns))
    return problems


def _problem_of_large_ids(
    spec: RunSpec, files: Sequence[InputFile], table: AccountsTable | EventsTable, feature_set: FeatureSet
) -> Iterator[Problem]:
    """Better now than at release, when everything has been scored."""
    to_sqlite = spec.release == "latest" and spec.database is None and feature_set.account_id == "integer"
    if to_sqlite and isinstance(table, AccountsTable) and holds_id_above(files, table.key, LARGEST_IN_SQLITE):
        yield Problem(
            where=f"{table.table}.{table.key}",
            what="id_too_large: ids above 2^63-1 can be scored, but no queue in SQLite can hold them",
            remedy="keep the queue in MySQL (database:), or write ids as text, with account_id: string and a new bundle",
        )


def _known_reason(reason: str) -> str:
    """The reason of the first problem, where it is one of the catalogue's; else what it must be: a type."""
    return (
        reason
        if reason
        in {
            "column_missing",
            "column_duplicate",
            "type_drift",
            "id_physical_type",
            "id_too_large",
            "key_not_indexed",
            "naive_timestamp",
            "table_missing",
            "database_setup",
        }
        else "column_type"
    )
