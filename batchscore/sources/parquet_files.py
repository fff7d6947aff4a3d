"""Which files a Parquet input has, by their names and footers alone: what cannot be read is refused before anything is."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from stat import S_ISREG
from typing import Final, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.errors import Problem, Refused
from batchscore.plan import InputFile

_TAIL_BYTES: Final = 8  # the footer's length, and PAR1
_FOOTER_THREADS: Final = 8
One = TypeVar("One")
Told = TypeVar("Told")


def told_by_each(look: Callable[[One], Told], files: Iterable[One]) -> list[Told]:
    """What ``look`` tells of each file, in their order; several are looked at beside each other."""
    with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        return list(pool.map(look, files))


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
    read = told_by_each(lambda path: _read_footer(base, path), found)
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
            footer = footer_of(path)
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


def footer_of(path: Path) -> bytes:
    """The bytes of a file's footer: as many before the last eight as these say.

    Raises:
        OSError: it cannot be read, or they point before its beginning.
    """
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
