"""What specs, plans and policies are made of: frozen values, and how a duration, a moment or a number is written in YAML."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

NAME: Final = r"^[a-z][a-z0-9_-]{0,62}$"
DURATION: Final = re.compile(r"^(0|[1-9]\d{0,4})(d|h)$")


class Value(BaseModel):
    """Frozen, and a stranger to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)


def parse_duration(value: object) -> timedelta:
    """``7d`` or ``12h`` as a fixed duration (a day is 24 hours: daylight saving does not exist in features).

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, timedelta):
        return value
    match = DURATION.match(value) if isinstance(value, str) else None
    if match is None:
        msg = f"{value!r} is not a duration → write whole days or hours, such as 7d or 12h"
        raise ValueError(msg)
    count, unit = int(match[1]), match[2]
    return timedelta(days=count) if unit == "d" else timedelta(hours=count)


def format_duration(value: timedelta) -> str:
    """The inverse of `parse_duration`: ``7d``, or hours where days are not whole."""
    return f"{value // timedelta(hours=1)}h" if value % timedelta(days=1) else f"{value.days}d"


def parse_moment(value: object) -> datetime:
    """A date (midnight UTC) or a datetime with a zone, as an aware UTC datetime.

    Raises:
        ValueError: it is neither, or has no zone.
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value) if len(value) > len("2002-08-19") else date.fromisoformat(value)
        except ValueError:
            msg = f"{value!r} is not a date → write 2002-08-19 or 2002-08-19T06:00:00Z"
            raise ValueError(msg) from None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            msg = "a time needs a zone → write 2002-08-19T06:00:00Z"
            raise ValueError(msg)
        return value.astimezone(UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    msg = f"{value!r} is not a date → write 2002-08-19"
    raise ValueError(msg)


def _number(value: object) -> object:
    if isinstance(value, (str, bool)):
        msg = f"{value!r} is not a number → write it without quotes and with a point, such as 0.5"
        raise ValueError(msg)  # noqa: TRY004 (pydantic collects ValueError, not TypeError)
    return value


Duration = Annotated[timedelta, BeforeValidator(parse_duration), PlainSerializer(format_duration, when_used="json")]
PositiveDuration = Annotated[Duration, Field(gt=timedelta(0))]
Moment = Annotated[datetime, BeforeValidator(parse_moment)]
Probability = Annotated[float, BeforeValidator(_number), Field(ge=0, le=1)]
Number = Annotated[float, BeforeValidator(_number)]
Count = Annotated[int, BeforeValidator(_number)]
ColumnName = Annotated[str, Field(min_length=1, max_length=255)]
