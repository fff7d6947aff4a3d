"""Columns of a MySQL table, and how each is asked for: as an expression whose result is exact in any driver.

A signed or unsigned 64-bit integer, a double, or text; so PyMySQL and connectorx give the same values. A type without such an
expression in the role that a column has is refused by its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from batchscore.errors import PartitionError
from batchscore.spec import IdCast

ZERO_DATE: Final = -(2**63 - 1)  # what we ask for in place of '0000-00-00', which is neither a date nor null

# A ``number`` is a feature of an account, a ``value`` what features measure of an event.
Role = Literal["key", "time", "number", "category", "segment", "value"]
INTEGERS: Final = {"tinyint", "smallint", "mediumint", "int", "bigint"}
TEXTS: Final = {"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "uuid"}
BYTES: Final = {"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"}
MOMENTS: Final = {"datetime", "date", "timestamp"}
_NAMES: Final = TEXTS | {"enum", "set", "json"}  # text that is not to be put in order
_MOST_WHOLE_DIGITS: Final = 18  # of 2^63
_MOST_DIGITS: Final = 38  # of decimal128
_UUID_BYTES: Final = 16
TEXT_IN_BYTES: Final = pa.large_binary()  # bytes that must be UTF-8: they become text

TypedExpression = tuple[str, pa.DataType]


@dataclass(frozen=True, kw_only=True, slots=True)
class MySqlColumn:
    """A column as information_schema has it: ``kind`` such as ``bigint``, ``declared`` such as ``bigint(20) unsigned``."""

    name: str
    kind: str
    declared: str
    precision: int | None
    scale: int | None
    length: int | None
    nullable: bool

    @property
    def is_whole(self) -> bool:
        """Whether it holds integers of 64 bits at most."""
        digits = self.precision or _MOST_DIGITS
        return self.kind in INTEGERS or (self.kind == "decimal" and self.scale == 0 and digits <= _MOST_WHOLE_DIGITS)

    def asked_as(self, role: Role, quoted: str, cast: IdCast | None = None, *, in_binary: bool = False) -> TypedExpression | None:
        """The expression to select, and the Arrow type of its values; None when the type has no exact home in that role.

        ``cast``: what a spec declares account ids to become. ``in_binary``: how connectorx is answered and PyMySQL is not: a
        FLOAT needs no cast to come with all its bits, and casts are a tenth of a server's work on a page.
        """
        match role:
            case "key":
                return self._as_id(quoted, cast)
            case "time":
                return self._whole(quoted) if self.is_whole else self._as_time(quoted)
            case "number":
                return self._as_number(quoted, in_binary=in_binary)
            case "value":
                return self._as_number(quoted, in_binary=in_binary) or self._as_bytes(quoted) or self._as_name(quoted)
            case "category":
                return self._as_name(quoted)
            case "segment":
                return (f"CAST({quoted} AS CHAR)", pa.string()) if self.is_whole else self._as_name(quoted)

    def _as_name(self, quoted: str) -> TypedExpression | None:
        return (f"CONVERT({quoted} USING utf8mb4)", pa.string()) if self.kind in _NAMES else None

    def _as_bytes(self, quoted: str) -> TypedExpression | None:
        return (f"HEX({quoted})", pa.binary()) if self.kind in BYTES else None

    def _as_id(self, quoted: str, cast: IdCast | None) -> TypedExpression | None:
        """Integers and text as they are; bytes are text too, unless they are declared to become it otherwise."""
        if cast == "text":
            return (f"CAST({quoted} AS CHAR)", pa.string()) if self.is_whole else None
        if cast == "hex":
            return (f"LOWER(HEX({quoted}))", pa.string()) if self.kind in BYTES else None
        if cast == "uuid":
            dashed = f"LOWER(INSERT(INSERT(INSERT(INSERT(HEX({quoted}), 9, 0, '-'), 14, 0, '-'), 19, 0, '-'), 24, 0, '-'))"
            return (dashed, pa.string()) if self.kind == "binary" and self.length == _UUID_BYTES else None
        if self.is_whole:
            return self._whole(quoted)
        if self.kind in TEXTS:
            return f"CONVERT({quoted} USING utf8mb4)", pa.string()
        return (f"HEX({quoted})", TEXT_IN_BYTES) if self.kind in BYTES else None

    def _as_number(self, quoted: str, *, in_binary: bool) -> TypedExpression | None:
        if self.is_whole:
            return self._whole(quoted)
        if self.kind in {"bit", "year"}:
            return f"CAST({quoted} AS UNSIGNED)", pa.uint64()
        if self.kind in {"float", "double"}:
            as_it_stands = in_binary or self.declared == "double"
            return quoted if as_it_stands else f"CAST({quoted} AS DOUBLE)", pa.float64()
        if self.kind == "decimal" and self.precision is not None and self.precision <= _MOST_DIGITS:
            return f"CAST({quoted} AS CHAR)", pa.decimal128(self.precision, self.scale or 0)
        return None

    def _as_time(self, quoted: str) -> TypedExpression | None:
        """Microseconds since 1970: of a TIMESTAMP in UTC whatever the session's zone is, of others as they are written."""
        if self.kind in TEXTS:
            return f"CONVERT({quoted} USING utf8mb4)", pa.string()
        if self.kind not in MOMENTS:
            return None
        if self.kind == "timestamp":
            exact, arrow = f"CAST(UNIX_TIMESTAMP({quoted}) * 1000000 AS SIGNED)", pa.timestamp("us", "UTC")
        else:
            exact, arrow = f"TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', {quoted})", pa.timestamp("us")
        return f"CASE WHEN {quoted} IS NULL THEN NULL ELSE COALESCE({exact}, {ZERO_DATE}) END", arrow

    def _whole(self, quoted: str) -> TypedExpression:
        return as_whole(self, quoted), pa.uint64() if "unsigned" in self.declared else pa.int64()


def as_whole(column: MySqlColumn, quoted: str) -> str:
    """An integer's expression: as it stands, unless it is kept as a decimal."""
    if column.kind in INTEGERS:
        return quoted
    return f"CAST({quoted} AS {'UNSIGNED' if 'unsigned' in column.declared else 'SIGNED'})"


def columns_of(connection: sa.Connection, table: str) -> dict[str, MySqlColumn]:
    """The columns of a table or view of the connection's database, by name."""
    query = sa.text(
        "SELECT column_name AS name, data_type AS kind, column_type AS declared, numeric_precision AS prec, "
        "numeric_scale AS scale, character_octet_length AS length, is_nullable AS nullable "
        "FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = :table"
    )
    return {
        row.name: MySqlColumn(
            name=row.name,
            kind=row.kind,
            declared=row.declared,
            precision=row.prec,
            scale=row.scale,
            length=row.length,
            nullable=row.nullable == "YES",
        )
        for row in connection.execute(query, {"table": table}).all()
    }


def carried(kind: pa.DataType) -> pa.DataType:
    """What a driver hands over for a column of that type: times as integers, bytes as their hex, decimals as their digits."""
    if pa.types.is_timestamp(kind):
        return pa.int64()
    as_text = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_decimal(kind)
    return pa.string() if as_text else kind


def resulting(kind: pa.DataType) -> pa.DataType:
    """What a column that is asked for with that type ends up as."""
    return pa.string() if kind == TEXT_IN_BYTES else kind


def exact(column: pa.ChunkedArray, kind: pa.DataType, where: str) -> pa.Array:
    """The column in its type; checked, never rounded.

    Raises:
        PartitionError: ``column_type`` or ``invalid_utf8``.
    """
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()  # which copies even one
    if array.type != carried(kind):  # connectorx: 64-bit offsets of text
        array = array.cast(carried(kind))
    if pa.types.is_timestamp(kind):
        if pc.any(pc.equal(array, ZERO_DATE)).as_py():
            raise PartitionError("column_type", "holds a zero date, which is no time", where=where, remedy="make it null")
        return array.cast(kind)
    if pa.types.is_decimal(kind):
        return array.cast(kind)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        held = pa.array([None if text is None else bytes.fromhex(text) for text in array.to_pylist()], pa.binary())
        return held if kind != TEXT_IN_BYTES else _text(held, where)
    return array


def _text(held: pa.Array, where: str) -> pa.Array:
    try:
        return held.cast(pa.string())
    except pa.ArrowInvalid:
        raise PartitionError("invalid_utf8", "holds bytes that are not UTF-8", where=where) from None
