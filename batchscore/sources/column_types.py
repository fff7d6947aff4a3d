"""What a column's Arrow type lets it hold: account ids, times, numbers, text, categories. Types alone are looked at, no value."""

from __future__ import annotations

from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

from batchscore.errors import Refused
from batchscore.features.tables import TimeColumn
from batchscore.keys import IdKind


def refuse_id_type(found: pa.DataType, kind: IdKind, *, where: str) -> None:
    """Raise Refused unless a column of that type can hold ids of ``kind`` exactly."""
    inexact = pa.types.is_floating(found) or pa.types.is_decimal(found) or pa.types.is_boolean(found)
    if inexact:
        raise Refused(
            "id_physical_type",
            f"account ids are {found}: they may already have lost digits",
            where=where,
            remedy="write them as integers or text where they are made",
        )
    fits = pa.types.is_integer(found) if kind == "integer" else is_text(found)
    if not fits and not pa.types.is_null(found):
        raise Refused(
            "column_type",
            f"account ids are {found}, the feature set says {kind}",
            where=where,
            remedy="set account_id in the feature set to what the ids are; kinds are never mixed",
        )


def is_number(kind: pa.DataType) -> bool:
    """What a feature can be made of: a float, an integer, a decimal, a bool, or nothing but nulls."""
    return bool(
        pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal128(kind)
        or pa.types.is_boolean(kind) or pa.types.is_null(kind)
    )  # fmt: skip


def is_text(kind: pa.DataType) -> bool:
    """Text, or bytes that must be UTF-8."""
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
        or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    )  # fmt: skip


def is_category(kind: pa.DataType) -> bool:
    """What a category can be: text, or nothing but nulls."""
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return bool(text or pa.types.is_null(kind))


@lru_cache
def _is_zone(zone: str) -> bool:
    try:
        pc.assume_timezone(pa.array([0], pa.timestamp("s")), zone, ambiguous="earliest", nonexistent="earliest")
    except (pa.ArrowException, KeyError):
        return False
    return True


def refuse_time_type(kind: pa.DataType, time: TimeColumn, *, where: str) -> None:
    """Raise Refused unless a column of that type (or one of nothing but nulls) is a time as ``time`` declares it."""
    if pa.types.is_null(kind):
        return
    if pa.types.is_integer(kind):
        if time.unit is None:
            raise Refused(
                "column_type",
                f"is {kind}, and no unit is declared",
                where=where,
                remedy=f"declare it: {{column: {time.column}, unit: s}}",
            )
        return
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        raise Refused(
            "column_type",
            f"is {kind}, which is no time",
            where=where,
            remedy="use a timestamp, a date, or an integer with a unit",
        )
    naive = pa.types.is_date(kind) or kind.tz is None
    if naive and (time.zone is None or not _is_zone(time.zone)):
        what = "has no zone, and none is declared" if time.zone is None else f"has no zone, and {time.zone!r} is none"
        raise Refused("naive_timestamp", what, where=where, remedy=f"declare it: {{column: {time.column}, zone: UTC}}")
