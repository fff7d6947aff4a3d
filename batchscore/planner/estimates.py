"""The stages of a plan, each with what it does and about how much of it there is. Estimates: no part of the hash."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from batchscore.features.definitions import DAY
from batchscore.features.feature_set import FeatureSet
from batchscore.plan import InputFile, StageEstimate, rows_of
from batchscore.spec import RunSpec


def stage_estimates(
    spec: RunSpec, feature_set: FeatureSet, inputs: dict[str, tuple[InputFile, ...]], observed: dict[str, str | int]
) -> tuple[StageEstimate, ...]:
    """The stages that the run will walk, in order; ``observed``: of live tables, as `read_inputs` saw them."""
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
