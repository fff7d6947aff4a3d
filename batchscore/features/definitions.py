"""What a feature can be: its YAML form, and the value it is read into. What each means is written in `windows` and `frame`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, TypeAdapter

from batchscore.values import NAME, Duration, Value
from batchscore.where import Where

Name = Annotated[str, Field(pattern=NAME)]
Column = Annotated[str, Field(min_length=1, max_length=255)]
Aggregate = Literal[
    "count", "sum", "min", "max", "mean", "std", "first", "last", "distinct", "top_share", "days_active", "time_since"
]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)  # grains are counted from it
DAY: Final = timedelta(days=1)
HOUR: Final = timedelta(hours=1)
MAX_WINDOW: Final = timedelta(days=3650)
OF_EVENTS: Final = frozenset({"count", "days_active", "time_since"})  # the others are of a column's values
OVER_EVENTS: Final = (
    "count", "sum", "min", "max", "mean", "std", "first", "last", "distinct", "top_share", "days_active", "time_since",
)  # fmt: skip
PYTHON: Final = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"


def _sentence(value: str) -> str:
    if {"{", "}"} & set(value.replace("{value}", "")):
        msg = f"{value!r} has braces that are not {{value}} → write {{value}} where the value stands"
        raise ValueError(msg)
    return value


Say = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_sentence)]


class OverEvents(Value):
    """An aggregate over the events of a window that ends at the as-of, and pass ``where``; ``window`` None is all history."""

    kind: Literal["over_events"] = "over_events"
    table: Name
    aggregate: Aggregate
    column: Column | None = None
    window: Duration | None = None
    where: Where = ()
    say: Say | None = None


class Ratio(Value):
    """One feature divided by another; missing where either is missing or the divisor is 0."""

    kind: Literal["ratio"] = "ratio"
    numerator: Name
    denominator: Name
    say: Say | None = None


class Difference(Value):
    """One feature less another; missing where either is missing."""

    kind: Literal["difference"] = "difference"
    minuend: Name
    subtrahend: Name
    say: Say | None = None


class AccountColumn(Value):
    """A column of the accounts table, as it is: a number, or a ``category``, whose values are names and stand for themselves."""

    kind: Literal["column"] = "column"
    column: Column
    category: bool = Field(default=False, exclude_if=lambda category: not category)  # a digest of before it was stays valid
    say: Say | None = None


class Age(Value):
    """Days from the account's ``created_at`` to the as-of."""

    kind: Literal["age"] = "age"
    say: Say | None = None


class PythonFeature(Value):
    """A row-wise function of earlier features, ``package:function`` of an installed distribution; see `python`."""

    kind: Literal["python"] = "python"
    function: Annotated[str, Field(pattern=PYTHON, max_length=255)]
    of: Annotated[tuple[Name, ...], Field(min_length=1, max_length=64)]
    say: Say | None = None


Definition = Annotated[OverEvents | Ratio | Difference | AccountColumn | Age | PythonFeature, Field(discriminator="kind")]
FROZEN: Final = TypeAdapter[Definition](Definition)  # the fields of a definition, not its YAML form
_FORMS: Final = (*OVER_EVENTS, "ratio", "difference", "column", "category", "age", "python")


def parts_of(definition: Definition) -> tuple[str, ...]:
    """The earlier features that a feature is made of."""
    match definition:
        case Ratio():
            return definition.numerator, definition.denominator
        case Difference():
            return definition.minuend, definition.subtrahend
        case PythonFeature():
            return definition.of
        case _:
            return ()


def read_definition(value: Any) -> Any:
    """The YAML form (``{sum: mails.bytes, window: 7d}``) as the fields of one of the definitions."""
    if not isinstance(value, dict):
        return value
    rest = dict(value)
    said = {key: rest.pop(key) for key in ("say", "window", "where") if key in rest}
    function_of = rest.pop("of", None) if "python" in rest else None
    if len(rest) != 1:
        msg = f"needs exactly one of {', '.join(_FORMS)} → such as {{count: mails, window: 7d}}"
        raise ValueError(msg)
    ((form, of),) = rest.items()
    if form not in _FORMS:
        msg = f"{form!r} is not a kind of feature → use one of {', '.join(_FORMS)}"
        raise ValueError(msg)
    if form in OVER_EVENTS:
        return {"kind": "over_events", **_over_events(form, of), **said}
    for key in ("window", "where"):
        if key in said:
            msg = f"a {form} has no {key} → remove it"
            raise ValueError(msg)
    return _without_events(form, of, function_of) | said


def _over_events(form: str, of: Any) -> dict[str, Any]:
    of_column = form not in OF_EVENTS
    if not isinstance(of, str):
        msg = f"{form} wants a table{' and column, such as mails.bytes' if of_column else ', such as mails'} → name it"
        raise ValueError(msg)  # noqa: TRY004 (pydantic collects ValueError, not TypeError)
    table, dot, column = of.partition(".")
    if bool(dot) != of_column:
        wanted = "a column, such as mails.bytes" if of_column else "a table alone, such as mails"
        msg = f"{form} wants {wanted} → change {of!r}"
        raise ValueError(msg)
    return {"table": table, "aggregate": form, "column": column or None}


def _without_events(form: str, of: Any, function_of: Any) -> dict[str, Any]:
    if form in {"column", "category"}:
        return {"kind": "column", "column": of, "category": form == "category"}
    if form == "age":
        if of != "created_at":
            msg = "an age is counted from created_at → write {age: created_at}"
            raise ValueError(msg)
        return {"kind": "age"}
    if form == "python":
        if not isinstance(function_of, list):
            msg = "a python feature says which features it is of → write {python: package:function, of: [mails_7d]}"
            raise ValueError(msg)
        return {"kind": "python", "function": of, "of": tuple(function_of)}
    if not isinstance(of, list) or len(of) != len(("first", "second")):
        msg = f"a {form} is of two features → write {{{form}: [mails_7d, mails_28d]}}"
        raise ValueError(msg)
    names = ("numerator", "denominator") if form == "ratio" else ("minuend", "subtrahend")
    return {"kind": form, **dict(zip(names, of, strict=True))}
