"""What a retry of a run would do again and what it would take as it stands. Decides; runs nothing.

Outputs lie at the address of what they were made from. So a retry is the plan made anew from the run's own spec and walked
once more: whatever still has its address is taken, and what was set aside, or whose input was mended, is done. When no pinned
part differs it is the next generation of the same plan; when one does, it is a new plan, and the part is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal

from batchscore.command import command
from batchscore.errors import Refused
from batchscore.freeze_layout import lay_out_account_files
from batchscore.layout import Definitions, earlier_rollups, frozen_events, lay_out_rollup, lay_out_shadow
from batchscore.operations.rejects import n_rejected
from batchscore.plan import FreezeEvents, FreezeSql, Partition, Plan, Stage
from batchscore.ports import QuarantinedRow, RunRow, StoreReader
from batchscore.receipt import Output
from batchscore.values import Value

SetAside = Literal["quarantined", "rejected"]
_OF_SCORES: Final = ("feature set", "bundle ", "library ", "stage formats")  # pinned parts that change every score


class Quarantined(Value):
    """What `batchscore status RUN --quarantined` shows."""

    run_id: str
    partitions: tuple[QuarantinedRow, ...]


class StageRetry(Value):
    """One stage of a retry; ``n_rows`` are those that are done again."""

    stage: Stage
    n_reused: int
    n_redone: int
    n_rows: int
    why: str = ""


class Retry(Value):
    """What `batchscore retry RUN` shows before it does it."""

    run_id: str
    asked: SetAside
    plan_digest: str
    changed: tuple[str, ...]  # pinned parts that differ; none: the next generation of the same plan
    n_quarantined: int
    n_rejected: int
    stages: tuple[StageRetry, ...]


def plan_retry(row: RunRow, made: Plan, reader: StoreReader, asked: SetAside) -> Retry:
    """What a retry of ``row`` does, where ``made`` is the plan of its spec as the world is now.

    Raises:
        Refused: ``nothing_to_retry``: nothing of that kind was set aside, it would be set aside again, or the run is not over.
    """
    aside = reader.quarantined(row.run_id)
    _refuse_unfinished(row, aside, reader)
    changed = row.plan.differences(made.pinned)
    count = n_rejected(reader, row.run_id)
    store = row.plan.spec.store
    if not (aside if asked == "quarantined" else count):
        look = command("status", row.run_id, store)
        raise Refused("nothing_to_retry", f"nothing was {asked}", where=row.run_id, remedy=look)
    if asked == "rejected" and not changed and not _reads_live_table(made):
        raise Refused(
            "nothing_to_retry",
            "no input has changed since, so the same rows would be rejected again",
            where=row.run_id,
            remedy=f"mend the files first; which rows: {command('rejects', row.run_id, store, '--out rejects.csv')}",
        )
    return Retry(
        run_id=row.run_id,
        asked=asked,
        plan_digest=made.digest,
        changed=changed,
        n_quarantined=len(aside),
        n_rejected=count,
        stages=_stages(row, made, changed, reader),
    )


def _refuse_unfinished(row: RunRow, aside: Iterable[QuarantinedRow], reader: StoreReader) -> None:
    """Only a run that has come to its end: finished, or failed because of what was set aside. Others are resumed."""
    newest = reader.runs_of_plan(row.plan_digest)[0].run_id
    if newest != row.run_id:
        raise Refused(
            "nothing_to_retry",
            f"{newest} is a later run of the same plan",
            where=row.run_id,
            remedy=f"look at that: {command('status', newest, row.plan.spec.store)}",
        )
    if row.failed_on_input:
        raise Refused(
            "nothing_to_retry",
            "the run ended because of an input, not because of what it set aside",
            where=row.run_id,
            remedy="mend the input as the run's reason says, then: batchscore run SPEC",
        )
    stopped = row.state == "failed" and any(partition.stage not in {Stage.SCORE, Stage.SHADOW} for partition in aside)
    driven = row.state == "running" and not row.driver_gone
    if row.state != "finished" and not stopped:
        raise Refused(
            "nothing_to_retry",
            f"the run is {row.state}, so what it left is not known yet",
            where=row.run_id,
            remedy=f"let it end first: {command('watch' if driven else 'resume', row.run_id, row.plan.spec.store)}",
        )


def _reads_live_table(plan: Plan) -> bool:
    return any(source.sql is not None for source in plan.spec.sources.values())


def _is_read_anew(partition: Partition) -> bool:
    """Whether its address holds its run: accounts of a live table, and events that may still change."""
    return isinstance(partition.work, FreezeSql) or (isinstance(partition.work, FreezeEvents) and not partition.work.closed)


def _freeze(
    row: RunRow, made: Plan, definitions: Definitions, reader: StoreReader
) -> tuple[StageRetry, Mapping[str, Sequence[Output]]]:
    """Its freeze, and what stays frozen of live tables of events. Of live tables it is foretold from what ``row`` laid out."""
    files = lay_out_account_files(made, definitions)
    if not _reads_live_table(made):
        return _counted(Stage.FREEZE, files, reader), {}
    stood = reader.partitions(row.run_id, Stage.FREEZE)
    closed = tuple(one for one in stood if isinstance(one.work, FreezeEvents) and one.work.closed)
    anew = tuple(filter(_is_read_anew, stood))
    of_rest = _counted(Stage.FREEZE, (*files, *closed), reader)
    foretold = StageRetry(
        stage=Stage.FREEZE,
        n_reused=of_rest.n_reused,
        n_redone=of_rest.n_redone + max(1, len(anew)),
        n_rows=of_rest.n_rows + sum(one.n_rows for one in anew),
        why="a live table is never the same input twice",
    )
    return foretold, frozen_events(closed, reader.receipts(row.run_id, Stage.FREEZE))


def _stages(row: RunRow, made: Plan, changed: Iterable[str], reader: StoreReader) -> tuple[StageRetry, ...]:
    definitions = Definitions.of(made)
    freeze, frozen = _freeze(row, made, definitions, reader)
    rollup = _counted(Stage.ROLLUP, lay_out_rollup(made, definitions, earlier_rollups(reader, ""), frozen), reader)
    if any(made.spec.sources[events.table].sql is not None for events in definitions.feature_set.events):
        rollup = rollup.model_copy(update={"why": "and, where it differs, what is read anew of live tables"})
    before = reader.partitions(row.run_id, Stage.SCORE)
    anew = freeze.n_redone or rollup.n_redone or any(name.startswith(_OF_SCORES) for name in changed)
    if before and not anew:
        return freeze, rollup, _counted(Stage.SCORE, before, reader), *_shadows(definitions, before, reader)
    why = "scores are made from all snapshots and rollups" if before else "the run ended before it scored"
    if before and rollup.why and made.spec.sources[definitions.feature_set.accounts.table].sql is None:
        why = "at most: what is read anew may be the same"
    estimate = next(stage for stage in made.stages if stage.stage == Stage.SCORE)
    n_redone, n_rows = len(before) or estimate.n_partitions or 0, estimate.n_rows or 0
    score = StageRetry(stage=Stage.SCORE, n_reused=0, n_redone=n_redone, n_rows=n_rows, why=why)
    n_shadows = len(definitions.shadows)
    shadow = score.model_copy(update={"stage": Stage.SHADOW, "n_redone": n_redone * n_shadows, "n_rows": n_rows * n_shadows})
    return (freeze, rollup, score, shadow) if n_shadows else (freeze, rollup, score)


def _shadows(definitions: Definitions, score: tuple[Partition, ...], reader: StoreReader) -> Iterator[StageRetry]:
    if definitions.shadows:
        yield _counted(Stage.SHADOW, lay_out_shadow(definitions, score), reader)


def _counted(stage: Stage, partitions: Iterable[Partition], reader: StoreReader) -> StageRetry:
    partitions = tuple(partitions)
    redone = [partition for partition in partitions if not reader.is_done(partition)]
    n_rows = sum(partition.n_rows for partition in redone)
    return StageRetry(stage=stage, n_reused=len(partitions) - len(redone), n_redone=len(redone), n_rows=n_rows)
