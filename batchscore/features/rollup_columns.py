"""The columns of a rollup: which there are, of which types, and what the input cannot give for them.

``account_id``; ``event_grain``, ``known_grain`` (int32, grains since 1970); ``n`` (int64, events); ``last_at`` (the latest
event_at, timestamp[us, UTC]); and those of the `partials` that the features need, null where no value is present.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import pyarrow as pa

from batchscore.errors import Problem
from batchscore.features.feature_set import FeatureSet
from batchscore.features.measured import held_type, refusal_of_part, refusal_of_tie, value_type
from batchscore.features.partials import Partial
from batchscore.features.tables import EventsTable
from batchscore.features.where import refusal_of
from batchscore.keys import ACCOUNT_ID, ID_TYPES, MOMENT

KEYS: Final = (ACCOUNT_ID, "event_grain", "known_grain")
EVENTS: Final = (Partial(None, "n"), Partial(None, "last_at"))  # of every rollup


def rollup_schema(feature_set: FeatureSet, table: str, events: pa.Schema) -> pa.Schema:
    """The schema of a rollup of events with the schema ``events``."""
    fields = [(ACCOUNT_ID, ID_TYPES[feature_set.account_id]), ("event_grain", pa.int32()), ("known_grain", pa.int32())]
    decimals = feature_set.events_table(table).decimals
    for partial in all_partials(feature_set, table):
        column = partial.column
        number = pa.int64() if column is None else held_type(events.field(column).type, decimals.get(column))
        match partial.part:
            case "distinct":
                fields.append((partial.name, pa.list_(pa.uint64())))
            case "top":
                fields += [(partial.name, pa.list_(pa.uint64())), (partial.beside("_n"), pa.list_(pa.int64()))]
            case "first" | "last":
                fields += [(partial.name, number), (partial.beside("_at"), MOMENT), (partial.beside("_known"), MOMENT)]
                fields.append((partial.beside("_tie"), pa.int64()))
            case "last_at":
                fields.append((partial.name, MOMENT))
            case "sum" | "min" | "max":
                fields.append((partial.name, number))
            case _:
                fields += [(name, pa.int64()) for name in columns_of_partial(partial)]
    return pa.schema(fields)


def all_partials(feature_set: FeatureSet, table: str) -> tuple[Partial, ...]:
    """Those of every rollup, then what the features need."""
    return *EVENTS, *(partial for partial in feature_set.partials(table) if partial not in EVENTS)


def columns_of_partial(partial: Partial) -> tuple[str, ...]:
    """The names of a partial's columns, where they are numbers."""
    return (partial.name, partial.beside("_low")) if partial.part == "square" else (partial.name,)


def check_measures(feature_set: FeatureSet, table: str, schema: pa.Schema) -> tuple[Problem, ...]:
    """What features ask of the columns of ``schema`` and those cannot give; an absent column is somebody else's to tell."""
    kinds = {field.name: value_type(field.type) for field in schema}
    events, partials = feature_set.events_table(table), feature_set.partials(table)
    found = [*_of_decimals(events, kinds), *_of_parts(events, partials, kinds), *_of_filters(table, partials, kinds)]
    if events.tie in kinds and any(partial.part in {"first", "last"} for partial in partials):
        refusal = refusal_of_tie(kinds[events.tie])
        if refusal is not None:
            what = f"is {kinds[events.tie]}; {refusal}"
            found.append(Problem(where=f"{table}.{events.tie}", what=what, remedy="name another column as tie"))
    return tuple(dict.fromkeys(found))


def _of_decimals(events: EventsTable, kinds: Mapping[str, pa.DataType]) -> Iterator[Problem]:
    for column in events.decimals:
        kind = kinds.get(column, pa.null())
        if not (pa.types.is_floating(kind) or pa.types.is_null(kind)):
            what = f"is {kind}, which needs no declared decimals"
            yield Problem(where=f"{events.table}.{column}", what=what, remedy="remove it from decimals")


def _of_parts(events: EventsTable, partials: Iterable[Partial], kinds: Mapping[str, pa.DataType]) -> Iterator[Problem]:
    """Counts of values and sums of squares stand beside another part, which tells the same."""
    for partial in partials:
        if partial.column is not None and partial.column in kinds and partial.part not in {"valid", "square"}:
            kind = kinds[partial.column]
            refusal = refusal_of_part(kind, partial.part, events.decimals.get(partial.column))
            if refusal is not None:
                what = f"{partial.part} of {kind} is not possible; {refusal}"
                remedy = "store whole units (cents, bytes), or use another aggregate"
                yield Problem(where=f"{events.table}.{partial.column}", what=what, remedy=remedy)


def _of_filters(table: str, partials: Iterable[Partial], kinds: Mapping[str, pa.DataType]) -> Iterator[Problem]:
    for condition in (condition for partial in partials for conditions in partial.where for condition in conditions):
        refusal = refusal_of(kinds.get(condition.column, pa.null()), condition)
        if refusal is not None:
            yield Problem(where=f"{table}.{condition.column}", what=f"where: {refusal}", remedy="change the filter")
