"""The queue as a file, a row for each flag: for a team's own tool, which may fill in ``disposition`` and hand it back."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from batchscore.desk import Reviewed
from batchscore.errors import Refused
from batchscore.files import in_words, publish
from batchscore.keys import ID_TYPES, MOMENT, IdKind
from batchscore.operations.rejects import guarded
from batchscore.review.decision_rows import guarded_id

_PARQUET: Final[dict[str, Any]] = {"compression": "zstd", "write_page_checksum": True}
_FREE_TEXT: Final = ("reasons", "since", "group", "claimed_by")


def export(pages: Iterable[Sequence[Reviewed]], kind: IdKind, path: Path) -> int:
    """Write flags to a new CSV or Parquet file, by its suffix, a page at a time; how many rows.

    ``evidence`` is the version of the evidence, which a decision on the row names; ``score`` is of its newest, ``reasons`` the
    sentences. In CSV, text that a spreadsheet would take for a formula has a ``'`` before it; the import takes that of ids off.

    Raises:
        Refused: ``file_exists`` or ``write_failed``.
    """
    as_csv = path.suffix.lower() == ".csv"
    schema = _table((), kind).schema
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    n = 0
    try:
        with pa.csv.CSVWriter(temporary, schema) if as_csv else pq.ParquetWriter(temporary, schema, **_PARQUET) as writer:
            for flags in pages:
                table = _table(flags, kind)
                writer.write_table(_guarded(table, kind) if as_csv else table)
                n += len(table)
        publish(temporary, path.absolute())
    except FileExistsError:
        what = "a file is there already"
        raise Refused("file_exists", what, where=str(path), remedy="name a new file, or move that one away") from None
    except OSError as error:
        raise Refused("write_failed", in_words(error), where=str(path), remedy="free space or name another place") from None
    finally:
        temporary.unlink(missing_ok=True)
    return n


def _guarded(table: pa.Table, kind: IdKind) -> pa.Table:
    texts = {name: pa.array([guarded(text) for text in table[name].to_pylist()], pa.string()) for name in _FREE_TEXT}
    if kind == "string":
        texts["account_id"] = pa.array([guarded_id(text) for text in table["account_id"].to_pylist()], pa.string())
    for name, column in texts.items():
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def _table(flags: Sequence[Reviewed], kind: IdKind) -> pa.Table:
    return pa.table({name: pa.array(values, of) for name, (values, of) in _columns(flags, kind).items()})


def _columns(flags: Sequence[Reviewed], kind: IdKind) -> dict[str, tuple[list[object], pa.DataType]]:
    newest = [row.newest.flag for row in flags]
    claims = [row.claim for row in flags]
    return {
        "queue": ([row.flag.queue for row in flags], pa.string()),
        "account_id": ([row.flag.account_id for row in flags], ID_TYPES[kind]),
        "run_id": ([row.flag.run_id for row in flags], pa.string()),
        "as_of": ([row.flag.as_of for row in flags], MOMENT),
        "rank": ([row.flag.rank for row in flags], pa.int64()),
        "state": ([row.state.value for row in flags], pa.string()),
        "score": ([flag.score for flag in newest], pa.float64()),
        "evidence": ([row.version for row in flags], pa.int64()),
        "reasons": (["; ".join(reason.sentence for reason in flag.reasons) for flag in newest], pa.string()),
        "since": ([flag.since for flag in newest], pa.string()),
        "group": ([row.flag.group for row in flags], pa.string()),
        "second_reviewer": ([row.needs_second for row in flags], pa.bool_()),
        "claimed_by": (["" if claim is None else claim.by for claim in claims], pa.string()),
        "disposition": ([None for _ in flags], pa.string()),
    }
