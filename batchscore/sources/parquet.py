"""Parquet input: which files there are, whether their columns can be used, and their rows in bounded batches.

Planning reads names and footers only. Reading checks that a file is still the one that was planned, that its pages match
their checksums, and that what it decodes to stays within the memory limit, whatever its footer claims.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from functools import reduce
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.errors import BatchscoreError, PartitionError, Problem, Refused
from batchscore.features.feature_set import AccountsTable, EventsTable, TimeColumn
from batchscore.keys import IdKind
from batchscore.plan import InputFile
from batchscore.settings import MAX_PARTITION_BYTES
from batchscore.sources.canonical import refuse_id_type, refuse_time_type

BATCH_ROWS: Final = 65_536
_FOOTER_THREADS: Final = 8
Table = AccountsTable | EventsTable


def list_inputs(root: Path) -> tuple[tuple[InputFile, ...], tuple[str, ...]]:
    """The Parquet files at ``root`` (a file, or a folder at any depth) in path order, and the names passed over.

    Names that begin with ``_`` or ``.`` are passed over, as every Parquet reader does (temporary and marker files).

    Raises:
        Refused: ``file_missing``, ``input_empty``, ``path_escapes_root``, or ``not_parquet`` / ``parquet_codec`` with
            every file at fault.
    """
    if not root.exists():
        raise Refused("file_missing", "there is no such file or folder", where=str(root), remedy="check the path in the spec")
    found, passed_over = ([root], []) if root.is_file() else _walk(root)
    if not found:
        raise Refused("input_empty", "the folder holds no Parquet file", where=str(root), remedy="check the path in the spec")
    base = root.parent if root.is_file() else root
    with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        read = list(pool.map(lambda path: _read_footer(base, path), found))
    problems = tuple(problem for problem in read if isinstance(problem, Problem))
    if problems:
        reason = "parquet_codec" if all("codec" in problem.what for problem in problems) else "not_parquet"
        raise Refused(
            reason,
            f"{len(problems)} of {len(found)} files cannot be read",
            where=str(root),
            problems=problems,
            remedy="restore or remove them",
        )
    return tuple(file for file in read if isinstance(file, InputFile)), tuple(passed_over)


def _walk(root: Path) -> tuple[list[Path], list[str]]:
    """Files below ``root`` in path order, and names passed over; symlinks may not lead out."""
    inside = root.resolve()
    found, passed_over = [], []
    for folder, folders, names in os.walk(root, followlinks=True):
        here = Path(folder)
        for name in [*folders, *names]:
            path = here / name
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                raise Refused(
                    "path_escapes_root",
                    "a symlink leads out of the input folder",
                    where=str(path.relative_to(root)),
                    remedy="copy the files in, or name their own folder",
                )
        hidden = [name for name in [*folders, *names] if name.startswith(("_", "."))]
        passed_over += [str((here / name).relative_to(root)) for name in hidden]
        folders[:] = sorted(name for name in folders if name not in hidden)
        found += [here / name for name in names if name not in hidden]
    return sorted(found, key=lambda path: path.relative_to(root).parts), sorted(passed_over)


def _read_footer(base: Path, path: Path) -> InputFile | Problem:
    where = path.relative_to(base).as_posix()
    try:
        stat = path.stat()
        with pq.ParquetFile(path) as file:
            codecs = _codecs(file)
            n_rows = file.metadata.num_rows
    except (OSError, pa.ArrowException) as error:
        encrypted = "encrypt" in str(error).lower()
        return Problem(where=where, what="is encrypted" if encrypted else "is empty, cut short or not Parquet")
    unknown = [codec for codec in codecs if codec != "UNCOMPRESSED" and not pa.Codec.is_available(codec.lower())]
    if unknown:
        return Problem(where=where, what=f"uses the codec {unknown[0]}, which this pyarrow cannot read")
    return InputFile(root=str(base), path=where, n_bytes=stat.st_size, mtime_ns=stat.st_mtime_ns, n_rows=n_rows)


def _codecs(file: pq.ParquetFile) -> set[str]:
    if not file.metadata.num_row_groups:
        return set()
    group = file.metadata.row_group(0)
    return {group.column(number).compression.replace("LZ4_RAW", "LZ4") for number in range(group.num_columns)}


def check_schema(files: Sequence[InputFile], table: Table, columns: Iterable[str], kind: IdKind) -> tuple[Problem, ...]:
    """What is wrong with the columns of an input, over all its files; nothing is ever guessed or filled in."""
    with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        schemas = list(pool.map(_schema_of, files))
    problems: dict[tuple[str, str], Problem] = {}
    needed = [table.key, *(time.column for time in _times(table)), *columns]
    for file, schema in zip(files, schemas, strict=True):
        for problem in _problems_of(schema, table, needed, kind):
            problems.setdefault(
                (problem.where, problem.what),
                problem.__class__(
                    where=f"{table.table}.{problem.where}", what=f"{problem.what} (first in {file.path})", remedy=problem.remedy
                ),
            )
    return (*problems.values(), *_drift(files, schemas, table, needed))


def unified_schema(files: Sequence[InputFile], columns: Iterable[str]) -> pa.Schema:
    """The schema of ``columns`` over all files, brought together without loss; after `check_schema` found nothing."""
    with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        schemas = [_plain(schema, list(columns)) for schema in pool.map(_schema_of, files)]
    return pa.unify_schemas(schemas, promote_options="permissive")


def _schema_of(file: InputFile) -> pa.Schema:
    return pq.read_schema(Path(file.root) / file.path).remove_metadata()


def _times(table: Table) -> list[TimeColumn]:
    times = [table.event_at, table.known_at] if isinstance(table, EventsTable) else [table.created_at, table.deleted_at]
    return [time for time in times if isinstance(time, TimeColumn)]


def _problems_of(schema: pa.Schema, table: Table, needed: list[str], kind: IdKind) -> Iterator[Problem]:
    times = {time.column: time for time in _times(table)}
    for name in dict.fromkeys(needed):
        n_found = schema.names.count(name)
        if n_found == 0:
            yield Problem(where=name, what="column_missing: is not among the columns", remedy=_nearest(name, schema.names))
        elif n_found > 1:
            yield Problem(where=name, what=f"column_duplicate: stands {n_found} times", remedy="keep one column of that name")
        else:
            found = schema.field(name).type
            found = found.value_type if pa.types.is_dictionary(found) else found
            try:
                if name == table.key:
                    refuse_id_type(found, kind, where=name)
                elif name in times:
                    refuse_time_type(found, times[name], where=name)
                elif pa.types.is_nested(found):
                    yield Problem(where=name, what=f"column_type: is {found}, which no feature can use", remedy="flatten it")
            except BatchscoreError as error:
                yield Problem(where=name, what=f"{error.reason}: {error.what}", remedy=error.remedy)


def _nearest(name: str, names: Sequence[str]) -> str:
    folded = {found.casefold(): found for found in names}
    near = get_close_matches(name.casefold(), list(folded), n=1)
    return f"did you mean {folded[near[0]]!r}?" if near else "add it to the files, or change the feature set"


def _drift(files: Sequence[InputFile], schemas: Sequence[pa.Schema], table: Table, needed: list[str]) -> Iterator[Problem]:
    """Columns whose types differ between files in a way that loses something."""
    for name in dict.fromkeys(needed):
        kinds: dict[pa.DataType, str] = {}
        for file, schema in zip(files, schemas, strict=True):
            if schema.names.count(name) == 1:
                kinds.setdefault(_plain(schema, [name]).field(name).type, file.path)
        if len(kinds) > 1 and not _lossless(list(kinds)):
            said = ", ".join(f"{kind} in {path}" for kind, path in list(kinds.items())[:2])
            yield Problem(where=f"{table.table}.{name}", what=f"type_drift: {said}", remedy="write all files with one type")


def _lossless(kinds: list[pa.DataType]) -> bool:
    """Whether one type holds all values of all: integers with integers, floats with floats, times with times."""
    for family in (pa.types.is_integer, pa.types.is_floating, _is_time):
        if all(family(kind) for kind in kinds):
            try:
                reduce(_wider, kinds)
            except pa.ArrowException:
                return False
            return family is not _is_time or len({kind.tz is None for kind in kinds if pa.types.is_timestamp(kind)}) <= 1
    return False


def _wider(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    return pa.unify_schemas([pa.schema([("c", one)]), pa.schema([("c", other)])], promote_options="permissive").field("c").type


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind))


def _plain(schema: pa.Schema, columns: list[str]) -> pa.Schema:
    """Columns by name, dictionaries and the forms of text brought to one."""
    fields = []
    for name in columns:
        kind = schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        fields.append((name, pa.string() if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) else kind))
    return pa.schema(fields)


def read_batches(file: InputFile, columns: Iterable[str]) -> Iterator[pa.Table]:
    """Rows of a planned file in order, at most `BATCH_ROWS` a table, with the given columns only.

    Raises:
        PartitionError: ``input_digest_mismatch`` (not the file that was planned), ``file_missing``, ``input_corrupt``,
            ``invalid_utf8`` or ``memory_limit``.
    """
    path = Path(file.root) / file.path
    try:
        stat = path.stat()
    except OSError as error:
        raise PartitionError("file_missing", f"cannot be read: {os.strerror(error.errno or 0)}", where=file.path) from error
    if (stat.st_size, stat.st_mtime_ns) != (file.n_bytes, file.mtime_ns):
        raise PartitionError(
            "input_digest_mismatch",
            "size or time of change are not those of the plan",
            where=file.path,
            remedy="restore the file, or plan again",
        )
    names = list(dict.fromkeys(columns))
    n_rows = 0
    try:
        with pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=True, buffer_size=1 << 20) as opened:
            for batch in opened.iter_batches(BATCH_ROWS, columns=names, use_threads=False):
                if batch.nbytes > MAX_PARTITION_BYTES:
                    raise PartitionError(
                        "memory_limit",
                        f"{len(batch):,} rows decode to {batch.nbytes:,} bytes",
                        where=file.path,
                        remedy="write smaller values or row groups",
                    )
                n_rows += len(batch)
                yield pa.Table.from_batches([batch]).select(names)
            if n_rows == 0:
                yield opened.schema_arrow.empty_table().select(names)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise PartitionError(
            "input_corrupt", "a page does not decode, or does not match its checksum", where=file.path, remedy="restore the file"
        ) from error
    if n_rows != file.n_rows:
        raise PartitionError(
            "input_corrupt",
            f"the footer promises {file.n_rows:,} rows, {n_rows:,} were read",
            where=file.path,
            remedy="restore the file",
        )
