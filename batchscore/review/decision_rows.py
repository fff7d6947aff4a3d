"""Rows of decisions as a team's own tool has them: a CSV or Parquet file, or a table. Read as they are; every mistake is told.

``account_id`` and ``disposition`` are needed. ``queue`` and ``reviewer`` may be given for the whole file. ``evidence`` is the
version that the person saw (a decision on another is refused; without it, what was released by ``decided_at`` counts),
``decided_at`` when (a moment with a zone, or microseconds since 1970), ``run_id`` names one flag of several, ``why`` is kept.
Other columns are left alone, so an exported queue with a column filled in is such a file. Rows without a disposition say nothing.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from batchscore.audit import mistake_of_name
from batchscore.database import columns_of_table, open_engine, rows_of_table
from batchscore.desk import Opinion
from batchscore.errors import Problem, Refused
from batchscore.flag import Disposition
from batchscore.keys import IdKind
from batchscore.review.account_ids import account_id_from
from batchscore.settings import database_url
from batchscore.values import parse_moment

COLUMNS: Final = ("queue", "account_id", "disposition", "reviewer", "evidence", "decided_at", "run_id", "why")
_NEEDED: Final = ("account_id", "disposition")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FORMULA: Final = re.compile(r"'*[=+\-@\t\r]")
MAX_WHY: Final = 2_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """What holds for every row that does not say otherwise; ``kind``: of the store's account ids."""

    kind: IdKind
    queue: str | None
    by: str | None
    evidence_needed: bool = False


def read_opinions(rows: Iterable[Mapping[str, Any]], given: Given, where: str) -> tuple[list[Opinion], list[int]]:
    """The opinions of ``rows``, and the number of each one's row, from 1.

    Raises:
        Refused: ``dispositions_invalid``, with each mistake and the number of its row; no value of a row is repeated.
    """
    opinions: list[Opinion] = []
    numbers: list[int] = []
    problems: list[Problem] = []
    for number, row in enumerate(rows, start=1):
        said = {name: value for name, value in row.items() if name in COLUMNS and value is not None and value != ""}
        if "disposition" not in said:
            continue
        try:
            opinions.append(_opinion(said, given))
            numbers.append(number)
        except ValueError as mistake:
            problems.append(Problem(where=f"row {number}", what=str(mistake)))
    if problems:
        raise Refused("dispositions_invalid", f"{len(problems)} row(s) cannot be read", where=where, problems=tuple(problems))
    return opinions, numbers


def rows_of_file(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a CSV (UTF-8) or Parquet file.

    Raises:
        Refused: ``file_missing``, ``not_parquet``, ``invalid_utf8``, ``column_missing`` or ``column_duplicate``.
    """
    try:
        yield from _csv(path) if path.suffix.lower() == ".csv" else _parquet(path)
    except OSError:
        raise Refused("file_missing", "cannot be read", where=path.name, remedy="name a CSV file in UTF-8, or Parquet") from None
    except (UnicodeDecodeError, csv.Error):
        raise Refused("invalid_utf8", "is no CSV in UTF-8", where=path.name, remedy="write it again as CSV in UTF-8") from None


def rows_of_database(url: str, table: str) -> Iterator[Mapping[str, Any]]:
    """The rows of a table of the database that the environment knows by the name ``url``.

    Raises:
        Refused: ``secret_missing``, ``table_missing``, ``column_missing``, or the database cannot be read.
    """
    where = f"url: {url}, table {table}"
    engine = open_engine(database_url(url), read_only=True)
    names = columns_of_table(engine, table, where=where)
    _require(names, where)
    yield from rows_of_table(engine, table, [name for name in names if name in COLUMNS], where=where)


def _csv(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        _require(reader.fieldnames or (), path.name)
        for row in reader:
            yield {**row, "account_id": _unguarded(row["account_id"])}


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        file = pq.ParquetFile(path)
    except ValueError:
        raise Refused(
            "not_parquet", "is no Parquet file", where=path.name, remedy="name a CSV file in UTF-8, or Parquet"
        ) from None
    with file:
        names = file.schema_arrow.names
        _require(names, path.name)
        for batch in file.iter_batches(columns=[name for name in names if name in COLUMNS], use_threads=False):
            yield from batch.to_pylist()


def _require(names: Sequence[str], where: str) -> None:
    for name in _NEEDED:
        if name not in names:
            remedy = f"name its columns: {', '.join(_NEEDED)}, and of {', '.join(COLUMNS)} what you have"
            raise Refused("column_missing", f"has no column {name}", where=where, remedy=remedy)
    if len(set(names)) != len(names):
        raise Refused("column_duplicate", "has two columns of one name", where=where, remedy="rename one of them")


def _opinion(row: Mapping[str, Any], given: Given) -> Opinion:
    queue, by = _text(row, "queue") or given.queue, _text(row, "reviewer") or given.by
    if queue is None:
        raise ValueError("names no queue → add a column queue, or --queue NAME")
    if by is None:
        raise ValueError("names no reviewer → add a column reviewer, or --by NAME")
    if mistake := mistake_of_name(by, of="a reviewer"):
        raise ValueError(mistake)
    if "account_id" not in row:
        raise ValueError("account_id is missing")
    if given.evidence_needed and "evidence" not in row:
        raise ValueError("evidence is missing → give the version that the person saw, as `queue show` and `queue export` name it")
    word = str(row["disposition"]).strip().lower()
    if word not in set(Disposition):
        raise ValueError(f"disposition is none of {', '.join(Disposition)}")
    why = _text(row, "why") or ""
    if len(why) > MAX_WHY:
        raise ValueError(f"why is longer than {MAX_WHY:,} characters")
    return Opinion(
        queue=queue,
        account_id=account_id_from(row["account_id"], given.kind),
        disposition=Disposition(word),
        by=by.strip(),
        evidence=_version(row.get("evidence")),
        run_id=_text(row, "run_id"),
        decided_at=_moment(row.get("decided_at")),
        why=why,
    )


def guarded_id(text: str) -> str:
    """An id that a spreadsheet would take for a formula, as a CSV file holds it: behind one more ``'``."""
    return f"'{text}" if _FORMULA.match(text) else text


def _unguarded(text: str | None) -> str | None:
    return text[1:] if text is not None and text.startswith("'") and _FORMULA.match(text) else text


def _text(row: Mapping[str, Any], name: str) -> str | None:
    value = row.get(name)
    if value is None or isinstance(value, str):
        return value
    raise ValueError(f"{name} is no text")


def _version(value: object) -> int | None:
    if value is None:
        return None
    text = str(value).strip()
    if isinstance(value, float) or not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ValueError("evidence is no version: a whole number from 1")
    return int(text)


def _moment(value: object) -> datetime | None:
    if value is None:
        return None
    try:
        if isinstance(value, int) and not isinstance(value, bool):
            return _EPOCH + timedelta(microseconds=value)
        return parse_moment(value)
    except (ValueError, OverflowError, TypeError):
        raise ValueError("decided_at is no moment with a zone, such as 2026-01-31T06:00:00Z") from None
