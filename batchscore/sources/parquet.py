"""Parquet input: which files there are, whether their columns can be used, and their rows in bounded batches.

Planning reads names and footers only. Reading checks that a file is still the one that was planned, that its pages match
their checksums, and that what it decodes to stays within the memory limit, whatever its footer claims.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from stat import S_ISREG
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.errors import BatchscoreError, PartitionError, Problem, Refused
from batchscore.features.feature_set import AccountsTable, EventsTable, TimeColumn
from batchscore.keys import IdKind
from batchscore.plan import InputFile
from batchscore.settings import MAX_PARTITION_BYTES
from batchscore.sources.canonical import is_category, is_number, is_text, refuse_id_type, refuse_time_type

_TAIL_BYTES: Final = 8  # the footer's length, and PAR1
BATCH_ROWS: Final = 65_536
BATCH_ROWS_OF_TEXT: Final = 8_192  # text may be long
_FOOTER_THREADS: Final = 8
Table = AccountsTable | EventsTable


def list_inputs(root: Path) -> tuple[tuple[InputFile, ...], tuple[str, ...]]:
    """The Parquet files at ``root`` (a file, or a folder at any depth) in path order, and the names passed over.

    Names that begin with ``_`` or ``.`` are passed over, as every Parquet reader does (temporary and marker files), and so are
    symlinks to what is read anyway.

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
    files = tuple(file for file in read if isinstance(file, InputFile))
    faults = [fault for fault in read if not isinstance(fault, InputFile)]
    if faults:
        reasons = {reason for reason, _ in faults}
        raise Refused(
            reasons.pop() if len(reasons) == 1 else "not_parquet",
            f"{len(faults)} of {len(found)} files cannot be read",
            where=str(root),
            problems=tuple(problem for _, problem in faults),
            remedy="restore or remove them",
        )
    return files, tuple(passed_over)


def _walk(root: Path) -> tuple[list[Path], list[str]]:
    """Files below ``root`` in path order, and names passed over. Symlinks may not lead out, nor give a file twice."""
    inside = root.resolve()
    found: list[Path] = []
    passed_over: list[str] = []
    seen = {inside}

    def cannot_be_listed(error: OSError) -> None:
        raise Refused(
            "file_missing",
            f"a folder cannot be listed: {os.strerror(error.errno or 0)}",
            where=str(root),
            remedy="give the right to read it",
        )

    for folder, folders, names in os.walk(root, followlinks=True, onerror=cannot_be_listed):
        here = Path(folder)
        below = set(folders)
        folders.clear()
        for name in sorted([*below, *names]):
            path = here / name
            target = path.resolve() if path.is_symlink() else inside / path.relative_to(root)
            if name.startswith(("_", ".")):
                passed_over.append(path.relative_to(root).as_posix())
            elif not target.is_relative_to(inside):
                raise Refused(
                    "path_escapes_root",
                    "a symlink leads out of the input folder",
                    where=path.relative_to(root).as_posix(),
                    remedy="copy the files in, or name their own folder",
                )
            elif path.is_symlink() and not _is_hidden(target.relative_to(inside)):
                passed_over.append(path.relative_to(root).as_posix())  # what it leads to is read where it stands
            elif target in seen:
                passed_over.append(path.relative_to(root).as_posix())
            else:
                seen.add(target)
                if name in below:
                    folders.append(name)
                else:
                    found.append(path)
    return sorted(found, key=lambda path: path.relative_to(root).parts), sorted(passed_over)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(("_", ".")) for part in path.parts)


def _read_footer(base: Path, path: Path) -> InputFile | tuple[str, Problem]:  # noqa: PLR0911 (a reason, a return)
    """A file as planned; or the reason why it cannot be, and the problem."""
    where = path.relative_to(base).as_posix()
    try:
        where.encode()
        stat = path.stat()
        if not S_ISREG(stat.st_mode):
            return "not_parquet", Problem(where=where, what="is no regular file")
        with pq.ParquetFile(path) as file:
            n_rows = file.metadata.num_rows
            footer = _footer(path)
            encrypted = len(footer) != file.metadata.serialized_size  # columns are, and the footer, in the clear, is signed
            codecs = set() if encrypted else _codecs(file.metadata)  # an encrypted column, asked for its codec, ends the process
    except UnicodeEncodeError:
        return "file_missing", Problem(where=ascii(where), what="has a name that is not UTF-8", remedy="rename it")
    except (FileNotFoundError, PermissionError) as error:
        return "file_missing", Problem(where=where, what=f"cannot be read: {os.strerror(error.errno or 0)}")
    except (OSError, ValueError, pa.ArrowException) as error:
        return "not_parquet", Problem(
            where=where, what="is encrypted" if "encrypt" in str(error).lower() else "is empty, cut short or not Parquet"
        )
    if encrypted:
        return "not_parquet", Problem(where=where, what="is encrypted", remedy="write it in the clear, on an encrypted disk")
    unknown = sorted(codec for codec in codecs if not _is_known(codec))
    if unknown:
        return "parquet_codec", Problem(
            where=where, what=f"uses the codec {unknown[0]}, which this pyarrow cannot read", remedy="write it with zstd"
        )
    if n_rows < 0:
        return "not_parquet", Problem(where=where, what="promises fewer than no rows")
    return InputFile(
        root=str(base),
        path=where,
        n_bytes=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        n_rows=n_rows,
        footer_sha256=hashlib.sha256(footer).hexdigest(),
    )


def _footer(path: Path) -> bytes:
    """The bytes of a file's footer: as many before the last eight as these say."""
    with path.open("rb") as stream:
        stream.seek(-_TAIL_BYTES, os.SEEK_END)
        n_bytes = int.from_bytes(stream.read(4), "little")
        stream.seek(-_TAIL_BYTES - n_bytes, os.SEEK_END)
        return stream.read(n_bytes)


def _codecs(metadata: pq.FileMetaData) -> set[str]:
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    return {group.column(number).compression for group in groups for number in range(group.num_columns)}


def _is_known(codec: str) -> bool:
    try:
        return codec == "UNCOMPRESSED" or bool(pa.Codec.is_available({"LZ4_RAW": "lz4"}.get(codec, codec.lower())))
    except ValueError:  # a name that Arrow has never heard of
        return False


def check_schema(
    files: Sequence[InputFile], table: Table, columns: Iterable[str], kind: IdKind, categories: Collection[str] = ()
) -> tuple[Problem, ...]:
    """What is wrong with the columns of an input, over all its files; nothing is ever guessed or filled in.

    ``categories``: those of the ``columns`` of accounts that must be text.
    """
    with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        schemas = list(pool.map(_schema_of, files))
    problems: dict[tuple[str, str], Problem] = {}
    needed = [table.key, *(time.column for time in _times(table)), *columns]
    for file, schema in zip(files, schemas, strict=True):
        for problem in _problems_of(schema, table, needed, kind, categories):
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


def holds_id_above(files: Sequence[InputFile], key: str, limit: int) -> bool:
    """Whether a footer says that a key is above ``limit``. False where footers say nothing: then the release finds it."""
    with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        return any(pool.map(lambda file: _largest(file, key) > limit, files))


def _largest(file: InputFile, key: str) -> int:
    """The largest integer key a footer tells of; -1 for none."""
    footer = pq.read_metadata(Path(file.root) / file.path)
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    columns = [group.column(place) for group in groups for place in range(group.num_columns)]
    told = [column.statistics for column in columns if column.path_in_schema == key and column.statistics is not None]
    return max((int(found.max) for found in told if found.has_min_max and isinstance(found.max, int)), default=-1)


def _schema_of(file: InputFile) -> pa.Schema:
    return pq.read_schema(Path(file.root) / file.path).remove_metadata()


def _times(table: Table) -> list[TimeColumn]:
    times = [table.event_at, table.known_at] if isinstance(table, EventsTable) else table.times.values()
    return [time for time in times if isinstance(time, TimeColumn)]


def _problems_of(
    schema: pa.Schema, table: Table, needed: list[str], kind: IdKind, categories: Collection[str]
) -> Iterator[Problem]:
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
                elif isinstance(table, AccountsTable):
                    yield from _problems_of_value(name, found, as_category=name in categories)
            except BatchscoreError as error:
                yield Problem(where=name, what=f"{error.reason}: {error.what}", remedy=error.remedy)


def _problems_of_value(name: str, kind: pa.DataType, *, as_category: bool) -> Iterator[Problem]:
    """Of a column of accounts that a feature reads."""
    if as_category and not is_category(kind):
        what = f"column_type: is {kind}, which is no text"
        yield Problem(where=name, what=what, remedy=f"read it as a number: {{column: {name}}}")
    elif not as_category and not is_number(kind):
        by_name = f", or read its names: {{category: {name}}}" if is_category(kind) else ""
        what = f"column_type: is {kind}, which is no number"
        yield Problem(where=name, what=what, remedy=f"make it a number where it is made{by_name}")


def _nearest(name: str, names: Sequence[str]) -> str:
    folded = {found.casefold(): found for found in names}
    near = get_close_matches(name.casefold(), list(folded), n=1)
    return f"did you mean {folded[near[0]]!r}?" if near else "add it to the files, or change the feature set"


def _same_meaning(name: str, kinds: Sequence[pa.DataType], table: Table) -> bool:
    """Whether a column with those types means one thing. Keys and times are brought to one exact form, each file for itself."""
    known = [kind for kind in kinds if not pa.types.is_null(kind)]
    if len(known) <= 1 or name == table.key:
        return True
    if name in {time.column for time in _times(table)}:
        return all(map(_is_aware, known)) or all(map(pa.types.is_integer, known)) or all(map(_is_naive, known))
    return _lossless(known)


def _is_aware(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind)) and kind.tz is not None


def _is_naive(kind: pa.DataType) -> bool:
    return bool(pa.types.is_date(kind)) or (bool(pa.types.is_timestamp(kind)) and kind.tz is None)


def _drift(files: Sequence[InputFile], schemas: Sequence[pa.Schema], table: Table, needed: list[str]) -> Iterator[Problem]:
    """Columns whose types differ between files in a way that loses something."""
    for name in dict.fromkeys(needed):
        kinds: dict[pa.DataType, str] = {}
        for file, schema in zip(files, schemas, strict=True):
            if schema.names.count(name) == 1:
                kinds.setdefault(_plain(schema, [name]).field(name).type, file.path)
        if not _same_meaning(name, list(kinds), table):
            said = ", ".join(f"{kind} in {path}" for kind, path in list(kinds.items())[:2])
            yield Problem(where=f"{table.table}.{name}", what=f"type_drift: {said}", remedy="write all files with one type")


def _lossless(kinds: Sequence[pa.DataType]) -> bool:
    """Whether one type holds all values of all: integers with integers, floats with floats."""
    if all(map(pa.types.is_floating, kinds)):
        return True
    signed = any(pa.types.is_signed_integer(kind) for kind in kinds)
    return all(map(pa.types.is_integer, kinds)) and not (signed and pa.uint64() in kinds)


def _plain(schema: pa.Schema, columns: list[str]) -> pa.Schema:
    """Columns by name, dictionaries and the forms of text brought to one."""
    fields = []
    for name in columns:
        kind = schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        fields.append((name, pa.string() if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) else kind))
    return pa.schema(fields)


def _has_footer(path: Path, sha256: str) -> bool:
    try:
        return hashlib.sha256(_footer(path)).hexdigest() == sha256
    except OSError:  # its length points before the file's beginning
        return False


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
    if (stat.st_size, stat.st_mtime_ns) != (file.n_bytes, file.mtime_ns) or not _has_footer(path, file.footer_sha256):
        raise PartitionError(
            "input_digest_mismatch",
            "size, time of change or footer are not those of the plan",
            where=file.path,
            remedy="restore the file, or plan again",
        )
    names = list(dict.fromkeys(columns))
    n_rows = 0
    try:
        with _opened(path, names) as (opened, batch_rows):
            for batch in opened.iter_batches(batch_rows, columns=names, use_threads=False):
                n_bytes = sum(map(_decoded_bytes, batch.columns))
                if n_bytes > MAX_PARTITION_BYTES:
                    raise PartitionError(
                        "memory_limit",
                        f"{len(batch):,} rows decode to {n_bytes:,} bytes",
                        where=file.path,
                        remedy="write smaller values",
                    )
                n_rows += len(batch)
                if n_rows > file.n_rows:
                    break
                yield pa.Table.from_batches([batch]).select(names)
            if n_rows == 0:
                yield opened.schema_arrow.empty_table().select(names)
    except (MemoryError, pa.ArrowCapacityError):
        raise PartitionError(
            "memory_limit", "a page decodes to more than there is room for", where=file.path, remedy="write smaller values"
        ) from None
    except (OSError, pa.ArrowException, UnicodeDecodeError, KeyError) as error:
        raise PartitionError(
            "input_corrupt", "a page does not decode, or does not match its checksum", where=file.path, remedy="restore the file"
        ) from error
    if n_rows != file.n_rows:
        held = "more" if n_rows > file.n_rows else f"{n_rows:,}"
        raise PartitionError(
            "input_corrupt", f"{file.n_rows:,} rows were planned, it holds {held}", where=file.path, remedy="restore the file"
        )


@contextmanager
def _opened(path: Path, names: list[str]) -> Iterator[tuple[pq.ParquetFile, int]]:
    """The file, and how many rows to read at a time.

    Text stays in its dictionaries until its size is known: a page of 40 KB may name one long word 65,536 times. Column
    chunks are read a buffer at a time, so that a row group may be larger than memory.
    """
    settings = {"page_checksum_verification": True, "pre_buffer": False, "buffer_size": 1 << 20}
    with pq.ParquetFile(path, **settings) as opened:
        text = [name for name in names if is_text(opened.schema_arrow.field(name).type)]
        if not text:
            yield opened, BATCH_ROWS
            return
    with pq.ParquetFile(path, read_dictionary=text, **settings) as opened:
        yield opened, BATCH_ROWS_OF_TEXT


def _decoded_bytes(column: pa.Array) -> int:
    """Bytes of a column once its dictionary is decoded."""
    if not pa.types.is_dictionary(column.type) or not is_text(column.type.value_type):
        return int(column.nbytes)
    lengths = pc.binary_length(column.dictionary).cast(pa.int64())
    return int(pc.sum(lengths.take(column.indices)).as_py() or 0)
