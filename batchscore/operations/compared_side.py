"""One side of a comparison: the scores of a run by one of its bundles, or by a bundle that is tried on its frozen input."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.command import command
from batchscore.decision import read_scores
from batchscore.errors import Refused
from batchscore.features.feature_set import open_feature_set
from batchscore.keys import ACCOUNT_ID, ID_TYPES, in_range
from batchscore.layout import Definitions, score_work, scores_of
from batchscore.models.bundle import read_manifest
from batchscore.models.contract import conform
from batchscore.models.loading import load_scorer
from batchscore.models.scorer import Scorer, require_riders
from batchscore.operations.contributions import Contributions, contributions_of
from batchscore.operations.remade import features_again, frames_again
from batchscore.plan import Reference, Score, Stage
from batchscore.ports import RunRow, StoreReader
from batchscore.report.comparison import Side

ScoresAt = Callable[[datetime], Iterable[pa.Table]]


@dataclass(frozen=True, slots=True)
class ComparedSide:
    """``scores``: as-of → tables of account_id, score and margin, each account once; read again for each call."""

    row: RunRow
    bundle: Reference
    said: Side
    works: tuple[Score, ...]
    scores: ScoresAt

    def contributions(self, as_of: datetime, ids: pa.Array) -> Iterator[Contributions]:
        """What this side's bundle makes of ``ids``, a key range at a time; who is not in its frozen input is left out."""
        scorer = load_scorer(self.bundle)
        for work in self.works:
            if as_of in work.as_ofs:
                mask = in_range(ids, work.keys.low, work.keys.high)
                among = ids if mask is None else ids.filter(mask)
                if len(among):
                    yield contributions_of(features_again(work, self.row.plan.spec.store, as_of, among).frame, scorer)


def committed_side(row: RunRow, reader: StoreReader, bundle: Reference | None = None) -> ComparedSide:
    """The scores that a run committed: of the bundle that flags, or of one of its shadows.

    Raises:
        Refused: ``run_unfinished``: not all of them are there.
    """
    stage = Stage.SCORE if bundle is None else Stage.SHADOW
    mine = [one for one in reader.partitions(row.run_id, stage) if bundle is None or score_work(one).bundle == bundle]
    numbers = {partition.number for partition in mine}
    receipts = [receipt for receipt in reader.receipts(row.run_id, stage) if receipt.number in numbers]
    aside = {one.number for one in reader.quarantined(row.run_id) if one.stage is stage}
    if row.decision is None or not mine or len(receipts) + len(aside & numbers) < len(mine):
        remedy = command("resume", row.run_id, row.plan.spec.store)
        raise Refused("run_unfinished", f"not all scores of {row.run_id} are there: it is {row.state}", remedy=remedy)
    files, store = scores_of(mine, receipts), Path(row.plan.spec.store)
    used = row.plan.bundles[0] if bundle is None else bundle
    return ComparedSide(
        row=row,
        bundle=used,
        said=_side(row, row.plan.bundle_names()[used.sha256], used, made_now=False),
        works=tuple(map(score_work, mine)),
        scores=lambda as_of: read_scores(store, files.get(as_of, ()), as_of),
    )


@contextmanager
def tried_side(row: RunRow, reader: StoreReader, path: Path) -> Iterator[ComparedSide]:
    """A bundle that the run does not know, scored now and here on the run's frozen input; its scores are gone with the block.

    They lie in a temporary folder, 24 bytes an account and as-of: memory holds one key range at a time, whatever the run's size.

    Raises:
        Refused: what reading or loading a bundle refuses; ``feature_contract``: it was made for another feature set.
    """
    opened = read_manifest(path)
    definitions = Definitions.of(row.plan)
    if opened.manifest.feature_set_digest != definitions.feature_set.digest:
        what, remedy = "the bundle was made for another feature set than the run's", "pack one with the features of the run"
        raise Refused("feature_contract", what, where=opened.manifest.name, remedy=remedy)
    works = tuple(score_work(partition) for partition in reader.partitions(row.run_id, Stage.SCORE))
    scorer = load_scorer(opened.reference)
    with tempfile.TemporaryDirectory(prefix="batchscore-compare-") as folder:
        paths = [_scored(work, row.plan.spec.store, scorer, Path(folder) / f"{n}.parquet") for n, work in enumerate(works)]
        require_riders(scorer)

        def scores(as_of: datetime) -> Iterator[pa.Table]:
            for work, file in zip(works, paths, strict=True):
                if as_of in work.as_ofs:
                    yield pq.ParquetFile(file).read_row_group(work.as_ofs.index(as_of))

        said = _side(row, opened.manifest.name, opened.reference, made_now=True)
        yield ComparedSide(row=row, bundle=opened.reference, said=said, works=works, scores=scores)


def _scored(work: Score, store: str, scorer: Scorer, path: Path) -> Path:
    """The scores of a key range, a row group for each as-of; who cannot be scored is left out, as in a run."""
    id_type = ID_TYPES[open_feature_set(work.feature_set).account_id]
    schema = pa.schema([(ACCOUNT_ID, id_type), ("score", pa.float32()), ("margin", pa.float32())])
    with pq.ParquetWriter(path, schema) as writer:
        for _, frame in frames_again(work, store):
            margin = scorer.margin(conform(frame, scorer.names, scorer.manifest.category_sets))
            table = pa.table([frame[ACCOUNT_ID], scorer.score_of(margin), margin], schema=schema)
            in_bounds = pc.and_(pc.greater_equal(table["score"], 0.0), pc.less_equal(table["score"], 1.0))  # NaN is not
            writer.write_table(table.filter(in_bounds), row_group_size=max(1, len(table)))
    return path


def _side(row: RunRow, name: str, bundle: Reference, *, made_now: bool) -> Side:
    return Side(run_id=row.run_id, spec=row.name, bundle=name, bundle_digest=bundle.sha256, made_now=made_now)
