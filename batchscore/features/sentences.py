"""Features in words: a sentence for the reviewer, and what `batchscore features show` tells of each: edges, nulls, errors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from batchscore.features.definitions import DAY, AccountColumn, Age, Definition, Difference, OverEvents, PythonFeature, Ratio
from batchscore.values import Value, format_duration
from batchscore.where import sentence_of as sentence_of_where

_SAYS: Final = {
    "count": "{value} {table} {over}",
    "sum": "{column} of {table} add up to {value} {over}",
    "min": "least {column} of {table} {over}: {value}",
    "max": "largest {column} of {table} {over}: {value}",
    "mean": "mean {column} of {table} {over}: {value}",
    "std": "standard deviation of {column} of {table} {over}: {value}",
    "first": "first {column} of {table} {over}: {value}",
    "last": "last {column} of {table} {over}: {value}",
    "distinct": "{value} different {column} in {table} {over}",
    "top_share": "share of {table} {over} with the commonest {column}: {value}",
    "days_active": "{value} days with {table} {over}",
    "time_since": "{value} days since the last of {table}",
}
_NULLS: Final = {
    "ratio": "missing where either is missing or the divisor is 0",
    "difference": "missing where either is missing",
    "column": "a null is missing",
    "age": "missing where created_at is null",
    "python": "the function decides; it gets what is missing as NaN",
}
GUARD: Final = (
    "of a sample of each backfill the features are made again with everything changed that was not known yet; a bit that differs "
    "ends the run before anything is released"
)
_ZERO_WHEN_EMPTY: Final = frozenset({"count", "sum", "distinct", "days_active"})


class Explained(Value):
    """One feature as `features show` tells it.

    ``empty``: its value where no event is in the window; empty text for a feature that is not over events. ``error``: how far
    it may be off; empty text when it is exact.
    """

    name: str
    sentence: str
    window: str
    empty: str
    nulls: str
    error: str = ""


class ExplainedFeatureSet(Value):
    """A feature set as `features show` tells it, its features in order.

    ``accounts``, ``coverage``, ``guard``: which row of an account speaks, who is left out while the data begin too late, and how
    leaks are looked for, a sentence each.
    """

    feature_set: str
    version: int
    grain: str
    digest: str
    accounts: str
    coverage: str
    guard: str
    features: tuple[Explained, ...]


class SampledAccount(Value):
    """One account's features (None: missing), and each with its value said in its sentence."""

    account_id: int | str
    values: dict[str, float | str | None]
    sentences: dict[str, str]


class Sampled(Value):
    """Features of a few accounts as of a moment, for the operator who asked to see them."""

    as_of: datetime
    accounts: tuple[SampledAccount, ...]

    @classmethod
    def of(cls, as_of: datetime, features: Mapping[str, Definition], rows: Iterable[Mapping[str, Any]]) -> Sampled:
        """From the rows of a frame; an infinite value, which no model is given, is missing here too."""
        accounts = []
        for row in rows:
            values = {name: _known(row[name]) for name in features}
            said = {
                name: sentence_of(definition).replace("{value}", value_in_words(values[name]))
                for name, definition in features.items()
            }
            accounts.append(SampledAccount(account_id=row["account_id"], values=values, sentences=said))
        return cls(as_of=as_of, accounts=tuple(accounts))


def _known(value: Any) -> float | str | None:
    if value is None or isinstance(value, str):
        return value
    return float(value) if math.isfinite(value) else None


def value_in_words(value: float | str | None) -> str:
    """A feature's value as a sample shows it."""
    if value is None:
        return "missing"
    return value if isinstance(value, str) else f"{value:g}"


def sentence_of(definition: Definition) -> str:  # noqa: PLR0911 (a case, a return)
    """One plain sentence with ``{value}`` in it. The feature's own ``say`` comes first."""
    if definition.say is not None:
        return definition.say if "{value}" in definition.say else f"{definition.say}: {{value}}"
    match definition:
        case OverEvents():
            return _over_events(definition)
        case Ratio():
            return f"{definition.numerator} over {definition.denominator} is {{value}}"
        case Difference():
            return f"{definition.minuend} less {definition.subtrahend} is {{value}}"
        case AccountColumn():
            return f"{definition.column} is {{value}}"
        case Age():
            return "the account is {value} days old"
        case PythonFeature():
            return f"{definition.function.partition(':')[2]} of {', '.join(definition.of)} is {{value}}"


def explained(name: str, definition: Definition, limit: int, *, of_history: bool = False) -> Explained:
    """All that is promised of a feature; the definitions are in `windows`.

    ``limit``: its table's ``distinct_limit``. ``of_history``: the accounts' table is a history.
    """
    sentence = sentence_of(definition)
    if isinstance(definition, OverEvents):
        return Explained(
            name=name,
            sentence=sentence,
            window="all history" if definition.window is None else f"{format_duration(definition.window)} up to the as-of",
            empty="0" if definition.aggregate in _ZERO_WHEN_EMPTY else "missing",
            nulls=_nulls(definition),
            error=_error(definition.aggregate, limit),
        )
    in_gaps = "; missing while no row of the history holds" if of_history and isinstance(definition, AccountColumn) else ""
    return Explained(name=name, sentence=sentence, window="at the as-of", empty="", nulls=_NULLS[definition.kind] + in_gaps)


def accounts_sentence(*, of_history: bool) -> str:
    """Which row of an account speaks at an as-of."""
    if of_history:
        return (
            "a history: of an account the row that began before the as-of and still holds; what changes at the as-of shows later"
        )
    return "one row each, that of today at every as-of: of its columns only those declared immutable can be features"


def coverage_sentence(floor: float | None, windows: Mapping[str, timedelta | None]) -> str:
    """Who is unscoreable while the data begin too late. ``windows``: events table → its longest window."""
    reached = ", ".join(f"{_length(window)} of {table}" for table, window in windows.items() if window is not None)
    if not reached:
        return "no feature has a window that the data would have to reach back over"
    if floor is None:
        return f"no floor: an account is scored however little the data reach back of {reached} (coverage: 0.5 would be one)"
    return (
        f"an account is unscoreable, and never a low score, while the data reach back over less than {100 * floor:g} % of "
        f"{reached}, or of its life where that is shorter"
    )


def _over_events(definition: OverEvents) -> str:
    over = "ever" if definition.window is None else f"in {_length(definition.window)}"
    said = _SAYS[definition.aggregate].format(value="{value}", table=definition.table, column=definition.column, over=over)
    where = sentence_of_where(definition.where)
    return f"{said}, {_without_braces(where)}" if where else said


def _without_braces(text: str) -> str:
    """A value in a filter may hold braces; in a sentence they would be places for values."""
    return text.translate({ord("{"): "(", ord("}"): ")"})


def _length(window: timedelta) -> str:
    count, unit = (window // timedelta(hours=1), "hour") if window % DAY else (window.days, "day")
    return f"{count} {unit}s"


def _nulls(definition: OverEvents) -> str:
    filtered = "; a null satisfies no condition of where" if definition.where else ""
    return f"every event counts{filtered}" if definition.column is None else f"a null is an event and no value{filtered}"


def _error(aggregate: str, limit: int) -> str:
    if aggregate == "distinct":
        return f"exact up to {limit}, beyond it estimated with a standard error of {1 / math.sqrt(limit - 1):.1%}"
    if aggregate == "top_share":
        return f"exact up to {limit} different values, beyond them missing"
    return ""
