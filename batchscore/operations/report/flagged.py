"""Flags in a report: how many, in which states, and for which reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.decide.table import FLAG, RESERVE, WITHHELD, of_standing
from batchscore.files import verified
from batchscore.flag import ReleasedAs
from batchscore.keys import ACCOUNT_ID, MOMENT
from batchscore.layout import decided_rows
from batchscore.models.bundle import manifest_of
from batchscore.operations.report.gaps import Gaps
from batchscore.plan import Stage
from batchscore.ports import RunRow, StoreReader
from batchscore.report.flags import count_flags
from batchscore.report.model import Flags
from batchscore.sources.segment import SEGMENT


def flags_of_run(row: RunRow, reader: StoreReader, gaps: Gaps) -> Flags | None:
    """None until decide has run."""
    if row.decision is None:
        return None
    with gaps.around("flags"):
        held = decided_rows(row.decision, FLAG, RESERVE, WITHHELD)
        aside = of_standing(held, WITHHELD)["withheld"].to_pylist()
        counted = count_flags(
            of_standing(held, FLAG).select(["as_of", "release"]),
            _explained(row, reader, gaps, of_standing(held, FLAG)),
            segment=row.plan.spec.segment,
            sentences=_sentences(row, gaps),
            states=reader.flag_states(row.run_id),
        )
        released_as = reader.released_as(row.run_id) if row.released_at is not None else {}
        aside_by_why = dict(sorted(Counter(aside).items()))
        more = {
            "n_reserve": len(of_standing(held, RESERVE)),
            "withheld": aside_by_why,
            "n_decided_kept": released_as.get(ReleasedAs.KEPT, 0),
            "n_evidence": released_as.get(ReleasedAs.EVIDENCE, 0),
            "n_instead": released_as.get(ReleasedAs.INSTEAD, 0),
            "n_suppressed": (n_suppressed := released_as.get(ReleasedAs.SUPPRESSED, 0)),
            "n_overtaken": counted.n_overtaken - n_suppressed,
        }
        return counted.model_copy(update=more)
    return None


def _explained(row: RunRow, reader: StoreReader, gaps: Gaps, flags: pa.Table) -> Iterator[pa.Table]:
    """Reasons of flags: the reserve, and evidence on flags that stand, are explained beside them and are none."""
    as_ofs = pc.unique(flags["as_of"]).to_pylist()
    of_date = {as_of: flags.filter(pc.equal(flags["as_of"], pa.scalar(as_of, MOMENT)))[ACCOUNT_ID] for as_of in as_ofs}
    folder = Path(row.plan.spec.store)
    for receipt in reader.receipts(row.run_id, Stage.REASONS):
        for output in receipt.outputs:
            table = None
            with gaps.around(f"reasons of partition {receipt.number}"):
                path = verified(str(folder / output.path), output.sha256)
                table = pq.read_table(path, columns=["as_of", "reasons", SEGMENT, ACCOUNT_ID])
            if table is not None:
                for as_of in set(pc.unique(table["as_of"]).to_pylist()) & of_date.keys():
                    is_flag = pc.is_in(table[ACCOUNT_ID], value_set=of_date[as_of].combine_chunks())
                    yield table.filter(pc.and_(pc.equal(table["as_of"], pa.scalar(as_of, MOMENT)), is_flag))


def _sentences(row: RunRow, gaps: Gaps) -> dict[str, str]:
    """Reason code → its sentence, with … where the value of an account would stand."""
    sentences: dict[str, str] = {}
    for bundle in row.plan.bundles:
        with gaps.around("sentences of the reasons"):
            for template in manifest_of(bundle).reasons.values():
                sentences.setdefault(template.code, template.sentence.replace("{value}", "…"))
    return sentences
