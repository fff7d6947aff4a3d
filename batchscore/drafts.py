"""The files of an attempt while they are its own: they grow under temporary names, and appear when it is done, or never.

Nothing of an attempt has to be durable before its receipt is. So nothing waits for the disk while there is something to compute:
`Drafts.publish` settles all files at the end, when the attempt holds no more than their descriptors and may have given up its
turn on the worker (`turn`).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.errors import AttemptFailed
from batchscore.failpoints import Point, reach
from batchscore.files import MEND_DISK, discard, in_words, make_folder, publish
from batchscore.keys import ACCOUNT_ID
from batchscore.receipt import Output
from batchscore.settings import MAX_SNAPSHOT_GROUP_ROWS
from batchscore.settling import Settling

Role = Literal["snapshot", "groups", "events", "rollup", "scores", "rejects", "reasons", "days", "closer_look"]


class Drafts:
    """The files that an attempt writes below ``<store>/<address>``. A context manager: what was not published is gone after it.

    A disk that is full or fails is AttemptFailed ``write_failed``, here and in each draft.
    """

    def __init__(self, store: Path, address: str) -> None:
        self._store, self._address = store, address
        self._open = ExitStack()
        self._begun: list[ParquetDraft | _ArrowDraft] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.close()

    def begin_parquet(self, schema: pa.Schema, role: Role, *, group_rows: int = MAX_SNAPSHOT_GROUP_ROWS) -> ParquetDraft:
        """A Parquet file that grows table by table, until its `ParquetDraft.end`."""
        draft = ParquetDraft(self._place(role, "parquet"), schema, group_rows)
        self._begun.append(self._open.enter_context(draft))
        return draft

    def write_parquet(
        self, tables: Iterable[pa.Table], schema: pa.Schema, role: Role, *, group_rows: int = MAX_SNAPSHOT_GROUP_ROWS
    ) -> int:
        """Write tables of one schema, from the first to the last, as one Parquet file; return its number of rows."""
        draft = self.begin_parquet(schema, role, group_rows=group_rows)
        for table in tables:
            draft.write(table)
        draft.end()
        return draft.n_rows

    def write_arrow(self, table: pa.Table, role: Role) -> None:
        """Write a table as an Arrow file: for rows that are looked up one by one, which Parquet would decode a page for."""
        place = self._place(role, "arrow")
        with _failing(role), pa.OSFile(str(place.temporary), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        self._begun.append(_ArrowDraft(place, len(table)))

    def publish(self) -> tuple[Output, ...]:
        """Make the files, which have ended, durable and visible, as they were begun: all, or none."""
        outputs: list[Output] = []
        with ExitStack() as undone:
            for draft in self._begun:
                outputs.append(output := draft.publish())
                undone.callback(discard, self._store / output.path)
            undone.pop_all()  # all stand, and may be told of
        return tuple(outputs)

    def _place(self, role: Role, suffix: str) -> _Place:
        name = f"{uuid.uuid4().hex}.{suffix}"
        folder = self._store / self._address
        place = _Place(role, f"{self._address}/{name}", folder / f".{name}.tmp", folder / name)
        self._open.callback(discard, place.temporary)
        with _failing(role):
            make_folder(folder)
            reach(Point.FILE_NAMED)
        return place


def write_parquet(
    tables: Iterable[pa.Table],
    schema: pa.Schema,
    store: Path,
    address: str,
    role: Role,
    *,
    group_rows: int = MAX_SNAPSHOT_GROUP_ROWS,
) -> Output:
    """Write and publish a single Parquet file.

    Raises:
        AttemptFailed: ``write_failed`` (disk full, I/O error); nothing is left under a final name.
    """
    with Drafts(store, address) as drafts:
        drafts.write_parquet(tables, schema, role, group_rows=group_rows)
        (output,) = drafts.publish()
        return output


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a file grows, and where it is to appear; ``path`` is the latter, relative to the store."""

    role: Role
    path: str
    temporary: Path
    final: Path

    def publish(self, n_rows: int, settling: Settling | None = None) -> Output:
        with _failing(self.role):
            sha256 = publish(self.temporary, self.final, settling)
            n_bytes = self.final.stat().st_size
        return Output(role=self.role, path=self.path, sha256=sha256, n_rows=n_rows, n_bytes=n_bytes)


class ParquetDraft:
    """A Parquet file that grows table by table, and appears whole when it is published. `Drafts` makes and ends it.

    Pages carry checksums. Equal tables give equal bytes, so that two attempts can be compared by SHA-256; that is why the
    tables are cut into row groups of ``group_rows`` here, and not as they happen to come.
    """

    def __init__(self, place: _Place, schema: pa.Schema, group_rows: int) -> None:
        self.n_rows = 0  # that are written
        self._place, self._schema, self._group_rows = place, schema, group_rows
        self._files = ExitStack()  # what is open
        self._waiting: list[pa.Table] = []
        self._n_waiting = 0

    def __enter__(self) -> Self:
        with _failing(self._place.role), ExitStack() as opened:
            self._sink = opened.enter_context(pa.OSFile(str(self._place.temporary), "wb"))
            self._settling = opened.enter_context(Settling(self._place.temporary))
            self._writer = opened.enter_context(
                pq.ParquetWriter(
                    self._sink,
                    self._schema,
                    compression=_compression(self._schema),
                    use_dictionary=False,
                    column_encoding={field.name: "DELTA_BINARY_PACKED" for field in self._schema if _is_whole(field.type)},
                    write_statistics=_with_statistics(self._schema, self._place.role),
                    write_page_checksum=True,
                    store_schema=True,
                )
            )
            self._files = opened.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(OSError, pa.ArrowException):  # of a file that nobody wants any more
            self._files.close()

    def write(self, table: pa.Table) -> None:
        """Add the rows of a table."""
        self._waiting.append(table)
        self._n_waiting += len(table)
        while self._n_waiting >= self._group_rows:
            held = pa.concat_tables(self._waiting)
            self._put(held.slice(0, self._group_rows))
            self._waiting, self._n_waiting = [held.slice(self._group_rows)], self._n_waiting - self._group_rows

    def end(self, footer: Mapping[str, str] | None = None) -> None:
        """End the file, with ``footer`` in its key-value metadata. It holds no rows in memory any more; nobody sees it yet."""
        if self._n_waiting or not self.n_rows:
            self._put(pa.concat_tables(self._waiting) if self._waiting else self._schema.empty_table())
        self._waiting, self._n_waiting = [], 0
        with _failing(self._place.role):
            if footer:
                self._writer.add_key_value_metadata(footer)
            self._writer.close()
            self._sink.close()

    def publish(self) -> Output:
        """Make the file, which has ended, durable and visible."""
        output = self._place.publish(self.n_rows, self._settling)
        self._files.close()
        return output

    def _put(self, group: pa.Table) -> None:
        with _failing(self._place.role):
            self._writer.write_table(group, row_group_size=self._group_rows)
            self._settling.grown(self._sink.tell())
            reach(Point.FILE_GROWING)
        self.n_rows += len(group)


@dataclass(frozen=True, slots=True)
class _ArrowDraft:
    """An Arrow file, whole from the beginning."""

    place: _Place
    n_rows: int

    def publish(self) -> Output:
        return self.place.publish(self.n_rows)


@contextmanager
def _failing(role: Role) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AttemptFailed("write_failed", in_words(error), where=f"stage output {role}", remedy=MEND_DISK) from error


def _compression(schema: pa.Schema) -> dict[str, str]:
    """LZ4, but not for floats: they hardly shrink, and trying doubles the time of writing them (measured). Nor for whole numbers.

    Those are written as differences (DELTA_BINARY_PACKED): beside LZ4 measured smaller by half, a third quicker to write and
    thrice as quick to read, and exact to the ends of 64 bits.
    """
    plain = {field.name: pa.types.is_floating(field.type) or _is_whole(field.type) for field in schema}
    return {name: "none" if is_plain else "lz4" for name, is_plain in plain.items()}


def _is_whole(kind: pa.DataType) -> bool:
    """Whether Parquet holds it as an integer: one, or a time."""
    return bool(pa.types.is_integer(kind) or pa.types.is_temporal(kind)) and not pa.types.is_interval(kind)


def _with_statistics(schema: pa.Schema, role: Role) -> list[str]:
    """Columns whose extremes stand in the footer: what readers pick row groups by, which is never a feature of a snapshot."""
    return [field.name for field in schema if role != "snapshot" or field.name == ACCOUNT_ID]
