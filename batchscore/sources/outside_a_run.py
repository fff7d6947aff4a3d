"""All accounts and events of sources for whoever wants features and no run: frozen to a scratch folder by the code of runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from batchscore.drafts import Drafts
from batchscore.features.feature_set import FeatureSet
from batchscore.plan import FreezeEvents, InputFile, Reference, Rollup
from batchscore.receipt import Output
from batchscore.sources.brake import Brake
from batchscore.sources.freeze import freeze_events, freeze_parquet, freeze_sql, live_range
from batchscore.sources.works import freeze_works, rollup_works
from batchscore.spec import Source


def freeze_outside_a_run(
    source: Source, files: Sequence[InputFile], feature_set: FeatureSet, held: Reference, scratch: Path
) -> Iterator[Output]:
    """Snapshots of all accounts below ``scratch``; raises as `freeze_parquet`.

    ``files`` are those of a Parquet source; ``held`` is the feature set as a file.
    """
    accounts = feature_set.accounts
    if source.sql is None:
        for work in freeze_works(files, accounts.table, held):
            with Drafts(scratch, "snapshots") as drafts:
                freeze_parquet(work, drafts, feature_set)
                yield from drafts.publish()
        return
    from batchscore.sources.sql import key_ranges  # noqa: PLC0415 (SQLAlchemy: whoever reads Parquet does without)

    for low, high in key_ranges(source.sql, accounts, feature_set.account_id):
        live = live_range(source.sql, accounts.table, held, (low, high), "no run")
        with Drafts(scratch, "snapshots") as drafts:
            freeze_sql(live, drafts, feature_set, Brake(source.sql))
            yield from drafts.publish()


def works_outside_a_run(
    sources: Mapping[str, Source],
    inputs: Mapping[str, tuple[InputFile, ...]],
    table: str,
    feature_set: FeatureSet,
    held: Reference,
    scratch: Path,
) -> Iterator[Rollup]:
    """Works that roll up all events of a table; those of a live one are frozen to ``scratch``."""
    source = sources[table].sql
    if source is None:
        yield from rollup_works(inputs[table], table, held)
        return
    from batchscore.sources.live_events import event_ranges  # noqa: PLC0415 (as above)

    for found in event_ranges(source, feature_set.events_table(table), {}):
        live = FreezeEvents(table=table, feature_set=held, source=source, low=found.low, high=found.high, closed=False)
        with Drafts(scratch, "events") as drafts:
            freeze_events(live, drafts, feature_set, Brake(source))
            outputs = drafts.publish()
        frozen = [Reference(path=str(scratch / one.path), sha256=one.sha256) for one in outputs if one.role == "events"]
        yield Rollup(table=table, feature_set=held, frozen=tuple(frozen))
