"""From a spec to a plan: reads the feature set, the manifest, the inputs' footers and the live table's shape. Writes nothing.

Everything that would make a run wrong and can be known now is refused now, all of it together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time
from pathlib import Path

from batchscore.acceptance import LIBRARY, Accepted, accept, changes, left, refuse
from batchscore.digest import digest_of
from batchscore.errors import Problem, Refused, TryAgain
from batchscore.features.definitions import DAY
from batchscore.features.feature_set import FeatureSet, read_feature_set
from batchscore.features.input_gate import days_needed, silence_told, silent_after
from batchscore.features.python import check_row_wise, fingerprints
from batchscore.features.rollup_columns import check_measures
from batchscore.features.tables import AccountsTable, EventsTable
from batchscore.models.bundle import Bundle, read_manifest
from batchscore.plan import BUNDLE, FUNCTION, SHADOW, STAGE_FORMAT, InputFile, Plan, StageEstimate, rows_of
from batchscore.ports import RunRow
from batchscore.settings import library_versions
from batchscore.sources.live_events import inspect_events
from batchscore.sources.parquet_columns import check_schema, holds_id_above, unified_schema
from batchscore.sources.parquet_files import list_inputs
from batchscore.sources.recent import last_event
from batchscore.sources.segment import gate_problems, group_problems, segment_problems_of_files
from batchscore.sources.sql import inspect_table
from batchscore.spec import RunSpec, Source, SqlSource
from batchscore.store.place import require_place
from batchscore.store.rows import LARGEST_IN_SQLITE


def make_plan(spec: RunSpec, *, now: datetime | None = None) -> Plan:
    """The plan of ``spec``. ``now`` is the clock's, and only what a person is told, and whether a ``lag`` is over, follow it.

    Raises:
        Refused: anything that can be known now and would make the run wrong: in the spec, the feature set, the bundle, the
            inputs' files or columns. Mistakes of one kind come together.
    """
    require_place(Path(spec.store), spec.database)
    feature_set = read_feature_set(Path(spec.feature_set))
    absent = [folder for folder in spec.bundle_paths if not Path(folder).exists()]
    bundles = tuple(read_manifest(Path(folder)) for folder in spec.bundle_paths if folder not in absent)
    refuse_mismatch(spec, feature_set, bundles)
    check_row_wise(feature_set)
    now = datetime.now(UTC) if now is None else now
    incomplete = _incomplete(spec, feature_set, now)  # before files are listed: whatever a marker vouches for is then among them
    inputs, passed_over, observed = read_inputs(spec, feature_set)
    if absent:  # told last: all else must be right before a bundle can be made
        raise Refused(
            "bundle_missing",
            "no bundle yet",
            where=absent[0],
            remedy="batchscore features build SPEC --as-of DATE --out frame.parquet; then train on it, and pack the model",
        )
    pinned = _pinned(spec, feature_set, bundles, inputs)
    return Plan(
        spec=spec,
        feature_set=feature_set.frozen_json(),
        bundles=tuple(bundle.reference for bundle in bundles),
        pinned=pinned,
        inputs=inputs,
        stages=_stages(spec, feature_set, inputs, observed),
        observed=observed,
        passed_over=passed_over,
        incomplete=incomplete,
        warnings=(*_warnings_of_as_ofs(spec, now), *_warnings_of_silence(spec, feature_set, inputs)),
    )


def plan_again(
    row: RunRow, standing: Sequence[Accepted] = (), *, accepts: Sequence[str] = (), by: str = ""
) -> tuple[Plan, tuple[Accepted, ...]]:
    """The plan of an earlier run, made anew, and what of it is newly accepted in the name of ``by``.

    ``standing``: what was accepted of the run before; ``accepts``: the parts that may differ now. The plan keeps what the run has
    pinned, so it is that run's.

    Raises:
        Refused: ``plan_changed`` with every pinned part that differs; ``not_acceptable``; what `make_plan` refuses.
    """
    made = make_plan(row.plan.spec)
    found = left(changes(row.plan.pinned, row.plan.inputs, made), standing)
    accepted = accept(found, accepts, made.pinned, by=by, mixed=True)
    refuse(
        left(found, accepted),
        what=f"changed since {row.run_id} was planned",
        where=row.run_id,
        command=f"batchscore resume {row.run_id} --store {row.plan.spec.store}",
        otherwise="put it back, or start a new run of the spec",
    )
    return made.model_copy(update={"pinned": row.plan.pinned}), accepted


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


def refuse_mismatch(spec: RunSpec, feature_set: FeatureSet, bundles: Sequence[Bundle]) -> None:
    """Raise Refused unless spec, feature set and bundles speak of the same tables, features and grain."""
    tables = [feature_set.accounts.table, *(events.table for events in feature_set.events)]
    problems = [
        Problem(where=f"sources.{name}", what="the feature set has no such table", remedy=f"its tables are: {', '.join(tables)}")
        for name in spec.sources
        if name not in tables
    ]
    problems += [
        Problem(where=f"sources.{name}", what="the feature set needs this table", remedy="say where it is")
        for name in tables
        if name not in spec.sources
    ]
    if spec.as_of is None:
        how = "add it, or say it on the command line: batchscore backfill SPEC --from … --to …, or batchscore sweep SPEC"
        problems.append(Problem(where="as_of", what="is missing", remedy=how))
    grain = "day" if feature_set.grain == DAY else "hour"
    problems += [
        Problem(
            where="as_of",
            what=f"{as_of.isoformat()} is not a whole {grain} in UTC",
            remedy="use dates: the grain is 1d" if grain == "day" else "use full hours: the grain is 1h",
        )
        for as_of in spec.as_ofs()
        if not feature_set.is_whole(as_of)
    ]
    problems += gate_problems(spec.gate, feature_set, spec.sources)
    accounts = feature_set.accounts
    problems += group_problems(spec.segment, spec.groups, accounts, feature_set.column_names(accounts.table))
    strange = [name for name in (spec.policy.again.counts if spec.policy.again else ()) if name not in feature_set.features]
    problems += [
        Problem(
            where=f"policy.again.counts.{name}", what="the feature set makes no such feature", remedy="name one of its features"
        )
        for name in strange
    ]
    names = [bundle.manifest.name for bundle in bundles]
    problems += [
        Problem(
            where="bundles",
            what=f"{names.count(name)} bundles are named {name!r}, and reports could not tell them apart",
            remedy="pack one under another name: batchscore bundle pack --name",
        )
        for name in sorted(set(names))
        if names.count(name) > 1
    ]
    if problems:
        raise Refused("spec_invalid", f"{len(problems)} mistake(s)", where=spec.name, problems=tuple(problems))
    for bundle in bundles:
        _refuse_other_features(bundle, feature_set)


def _refuse_other_features(bundle: Bundle, feature_set: FeatureSet) -> None:
    missing = [name for name in bundle.manifest.names if name not in feature_set.features]
    if missing:
        problems = tuple(Problem(where=name, what="the model wants it, the feature set does not make it") for name in missing)
        raise Refused(
            "feature_contract",
            f"the bundle {bundle.manifest.name!r} wants other features",
            problems=problems,
            remedy="use the feature set the bundle was trained for",
        )
    for feature in bundle.manifest.features:
        wanted = "text" if feature.categories and isinstance(feature.categories[0], str) else "numbers"
        made = "text" if feature.name in feature_set.categories else "numbers"
        if wanted != made:
            raise Refused(
                "feature_contract",
                f"the bundle {bundle.manifest.name!r} wants {wanted} of a feature that is made of {made}",
                where=feature.name,
                remedy="train and pack with this feature set: a category is text, split on by its values",
            )
    if bundle.manifest.feature_set_digest != feature_set.digest:
        raise Refused(
            "feature_contract",
            f"the bundle {bundle.manifest.name!r} was trained with another version of this feature set",
            where=f"feature set {feature_set.digest[:12]}, bundle wants {bundle.manifest.feature_set_digest[:12]}",
            remedy="use that version, or train and pack again: equal names may hold other values",
        )


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


def _pinned(
    spec: RunSpec, feature_set: FeatureSet, bundles: Sequence[Bundle], inputs: dict[str, tuple[InputFile, ...]]
) -> dict[str, str]:
    """Every part whose change would change scores or flags, by a name that a person understands. The first bundle flags."""
    pinned = {
        "spec": spec.name,
        "feature set": feature_set.digest,
        "policy": digest_of(spec.policy.pinned()),
        "as-of dates": digest_of(list(spec.as_ofs())),
        "release": spec.release,
    }
    if feature_set.coverage is not None:
        pinned["coverage"] = str(feature_set.coverage)
    if spec.segment:
        pinned["segment"] = spec.segment
    if spec.groups:
        pinned["groups"] = digest_of(list(spec.groups))
    if spec.gate:
        pinned["gate"] = digest_of({table: gate.model_dump(mode="json") for table, gate in spec.gate.items()})
    if spec.limits is not None:  # else editing them would be an approval by nobody
        pinned["limits"] = digest_of(spec.limits.model_dump(mode="json"))
    for place, bundle in enumerate(bundles):
        pinned[f"{SHADOW if place else BUNDLE}{bundle.manifest.name}"] = bundle.digest
    for table, source in spec.sources.items():
        pinned[f"source {table}"] = _pinned_source(source, inputs.get(table, ()))
    pinned |= {f"{FUNCTION}{name}": pin for name, pin in fingerprints(feature_set).items()}
    pinned["stage formats"] = ", ".join(f"{stage} {number}" for stage, number in sorted(STAGE_FORMAT.items()))
    return pinned | {f"{LIBRARY}{name}": version for name, version in library_versions()}


def _pinned_source(source: Source, files: Sequence[InputFile]) -> str:
    """Parquet by path, size, time of change and footer of each file; a live table by its names, its rows are frozen later.

    How gently it is read is no part: it may be changed while a run waits.
    """
    if source.sql is not None:
        return digest_of(source.sql.model_dump(mode="json", exclude={"gentle"}))
    return digest_of([(file.path, file.n_bytes, file.mtime_ns, file.footer_sha256) for file in files])


def _stages(
    spec: RunSpec, feature_set: FeatureSet, inputs: dict[str, tuple[InputFile, ...]], observed: dict[str, str | int]
) -> tuple[StageEstimate, ...]:
    accounts = inputs.get(feature_set.accounts.table, ())
    events = [file for table in feature_set.events for file in inputs.get(table.table, ())]
    live = {table.table: int(observed.get(rows_of(table.table, estimated=True), 0)) for table in feature_set.events}
    table = feature_set.accounts.table
    believed = rows_of(table, estimated=True)
    n_accounts = sum(file.n_rows for file in accounts) or int(observed.get(rows_of(table)) or observed.get(believed) or 0)
    n_scores = n_accounts * len(spec.as_ofs())
    grain = "day" if feature_set.grain == DAY else "hour"
    judged = "days of input judged; the run is held where one is not as usual"
    closer = "features and reasons of accounts that were cleared, then and now"
    released = "flags of the last as-of into the queue" if spec.release == "latest" else "nothing"
    return (
        StageEstimate(
            stage="freeze",
            does=f"accounts into sorted snapshots{_live_events(spec, feature_set)}"
            f"{'; rows of live tables are estimates' if believed in observed or any(live.values()) else ''}",
            n_rows=n_accounts + sum(live.values()),
            n_bytes=_bytes(accounts) if accounts else None,
        ),
        StageEstimate(
            stage="rollup",
            does=f"events into partial aggregates, a row for each account and {grain}",
            n_rows=sum(file.n_rows for file in events) + sum(live.values()),
            n_bytes=_bytes(events),
        ),
        StageEstimate(stage="merge", does="rollups of a closed month, or of one day, into one file each"),
        *([StageEstimate(stage="gate", does=judged)] if spec.gate else []),
        StageEstimate(
            stage="score",
            does="features and scores, each account at each as-of",
            n_rows=n_scores,
            n_partitions=max(1, -(-n_accounts // spec.partition_rows)),
        ),
        *([StageEstimate(stage="reconsider", does=closer)] if spec.policy.again and spec.policy.again.looks_closer else []),
        StageEstimate(stage="decide", does=f"policy and memory, for {len(spec.as_ofs())} as-of(s)", n_rows=n_scores),
        StageEstimate(stage="reasons", does="exact contributions of each flag, in words"),
        StageEstimate(stage="prove", does="every account accounted for, by key digest", n_rows=n_scores),
        StageEstimate(stage="release", does=released),
        *_shadow_stage(spec, n_scores),
    )


def _live_events(spec: RunSpec, feature_set: FeatureSet) -> str:
    names = [events.table for events in feature_set.events if spec.sources[events.table].sql is not None]
    return f", new events of {', '.join(names)} into files" if names else ""


def _incomplete(spec: RunSpec, feature_set: FeatureSet, now: datetime) -> dict[str, tuple[date, ...]]:
    """Table → the days that its gate judges and that are not complete by now: no marker is there, or its lag is not over."""
    found: dict[str, tuple[date, ...]] = {}
    for table, gate in spec.gate.items():
        days = days_needed(spec.as_ofs(), feature_set, table)
        parquet = spec.sources[table].parquet
        if gate.marker is not None and parquet is not None:
            folder, name = Path(parquet.path), gate.marker
            found[table] = tuple(day for day in days if not (folder / day.strftime(name)).is_file())
        elif gate.lag is not None:
            ends = {day: datetime.combine(day, time(), UTC) + DAY for day in days}
            found[table] = tuple(day for day, end in ends.items() if now < end + gate.lag)
    return {table: days for table, days in found.items() if days}


def _warnings_of_as_ofs(spec: RunSpec, now: datetime) -> Iterator[str]:
    ahead = [as_of for as_of in spec.as_ofs() if as_of > now]
    if len(ahead) == 1:
        yield f"as-of {ahead[0].isoformat()} is not over yet: what counts for it is not all there"
    elif ahead:
        yield f"{len(ahead)} as-ofs, from {ahead[0].isoformat()} on, are not over yet: what counts for them is not all there"


def _warnings_of_silence(spec: RunSpec, feature_set: FeatureSet, inputs: Mapping[str, tuple[InputFile, ...]]) -> Iterator[str]:
    """Events tables that end long before the last as-of, as footers tell."""
    until = spec.as_ofs()[-1]
    for events in feature_set.events:
        since = until - silent_after(feature_set, events.table)
        last = last_event(inputs.get(events.table, ()), events.event_at, since=since, until=until)
        if last is not None:
            yield silence_told(events.table, last.date(), until)


def _shadow_stage(spec: RunSpec, n_scores: int) -> Iterator[StageEstimate]:
    n_shadows = len(spec.bundles) - 1
    if n_shadows:
        yield StageEstimate(
            stage="shadow",
            does=f"scores by {n_shadows} more bundle(s), made beside score over the same features; they flag nothing",
            n_rows=n_scores * n_shadows,
        )


def _bytes(files: Sequence[InputFile]) -> int:
    return sum(file.n_bytes for file in files)
