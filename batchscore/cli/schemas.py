"""The JSON Schemas that `batchscore schema` prints.

Output models describe themselves. Specs and feature sets do not quite: people write durations as ``7d``, one date where a
list may stand, a definition as ``{count: mails, window: 7d}``, and pydantic sees those only after they were read. So the
parts whose written form differs are replaced here by what is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from batchscore.cli.outputs import OUTPUTS
from batchscore.features.definitions import OF_EVENTS, OVER_EVENTS, PYTHON
from batchscore.features.feature_set import FeatureSet
from batchscore.spec import RunSpec
from batchscore.values import DURATION, NAME
from batchscore.where import OPERATORS

_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
_DURATION: Final = {"type": "string", "pattern": DURATION.pattern, "description": "Whole days or hours, such as 7d or 12h."}
_MOMENT: Final = {
    "type": "string",
    "pattern": r"^\d{4}-\d{2}-\d{2}",
    "description": "A date (midnight UTC) or a time with a zone: 2002-08-19 or 2002-08-19T06:00:00Z.",
}
_BOUNDS: Final = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum"}  # pydantic's words behind a validator of ours
_NAME: Final = {"type": "string", "pattern": NAME}
_SAY: Final = {"type": "string", "minLength": 1, "maxLength": 200, "description": "A sentence for reviewers; {value} in it."}


def schema_names() -> tuple[str, ...]:
    """What `schema_of` knows: the files people write, then what commands print."""
    return ("spec", "feature-set", *OUTPUTS)


def schema_of(name: str) -> dict[str, Any]:
    """The JSON Schema of that name, one of `schema_names`."""
    if name == "spec":
        return {"$schema": _DRAFT} | _spec()
    if name == "feature-set":
        return {"$schema": _DRAFT} | _feature_set()
    return {"$schema": _DRAFT} | OUTPUTS[name].model_json_schema(mode="serialization")


def _spec() -> dict[str, Any]:
    schema: dict[str, Any] = _as_written(RunSpec.model_json_schema(by_alias=True))
    schema["$defs"].pop("Condition")
    schema["$defs"]["SqlSource"]["properties"]["where"] = _where()
    schema["properties"]["as_of"] = {
        "description": "One date, a list of dates, or a range.",
        "anyOf": [_MOMENT, {"type": "array", "items": _MOMENT, "minItems": 1}, {"$ref": "#/$defs/AsOfRange"}],
    }
    return schema


def _feature_set() -> dict[str, Any]:
    schema: dict[str, Any] = _as_written(FeatureSet.model_json_schema(by_alias=True))
    defs = schema["$defs"]
    for name in ("OverEvents", "Ratio", "Difference", "AccountColumn", "Age", "PythonFeature", "Condition"):
        defs.pop(name, None)
    time = defs.pop("TimeColumn")
    defs["TimeColumn"] = {"anyOf": [{"type": "string", "minLength": 1}, time], "description": "A column that holds a time."}
    known = {"anyOf": [{"const": "event_at"}, {"$ref": "#/$defs/TimeColumn"}]}
    events = defs["EventsTable"]
    events["properties"]["known_at"] = known | {"description": "When a row became visible; event_at: when it happened."}
    events["required"] = [*events["required"], "known_at"]
    defs["Definition"] = {"oneOf": _definitions()}
    schema["properties"]["features"] = {
        "type": "object",
        "minProperties": 1,
        "propertyNames": _NAME,
        "additionalProperties": {"$ref": "#/$defs/Definition"},
    }
    return schema


def _definitions() -> list[dict[str, Any]]:
    """One form for each kind of feature, as the YAML has it."""
    table = {"type": "string", "pattern": NAME, "description": "An events table."}
    column = {"type": "string", "pattern": r"^[a-z][a-z0-9_-]*\..+", "description": "A column of an events table: mails.bytes."}
    windowed = {"say": _SAY, "window": _DURATION, "where": _where()}
    over_events = [_form(form, table if form in OF_EVENTS else column, windowed) for form in OVER_EVENTS]
    two = {"type": "array", "items": _NAME, "minItems": 2, "maxItems": 2}
    names = {"type": "array", "items": _NAME, "minItems": 1, "maxItems": 64}
    python = _form("python", {"type": "string", "pattern": PYTHON}, {"of": names, "say": _SAY})
    return [
        *over_events,
        _form("ratio", two, {"say": _SAY}),
        _form("difference", two, {"say": _SAY}),
        python | {"required": ["python", "of"]},
        _form("column", {"type": "string", "minLength": 1}, {"say": _SAY}),
        _form("category", {"type": "string", "minLength": 1, "description": "A column of text."}, {"say": _SAY}),
        _form("age", {"const": "created_at"}, {"say": _SAY}),
    ]


def _where() -> dict[str, Any]:
    """Conditions that all hold, or a list of such lists of which one does."""
    operator = {"enum": list(OPERATORS)}
    condition = {
        "type": "array",
        "prefixItems": [
            {"type": "string", "minLength": 1},
            operator,
            {"anyOf": [{"type": kind} for kind in ("boolean", "number", "string", "array", "null")]},
        ],
        "minItems": 3,
        "maxItems": 3,
    }
    conditions = {"type": "array", "items": condition, "minItems": 1}
    described = "An AND of [column, op, value], or an OR of lists of them. A null satisfies none but [column, is, null]."
    return {"anyOf": [conditions, {"type": "array", "items": conditions}], "description": described}


def _form(key: str, of: Mapping[str, Any], rest: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {key: of, **rest}, "required": [key], "additionalProperties": False}


def _as_written(value: Any) -> Any:
    """The schema with durations and moments as text, wherever they stand."""
    if isinstance(value, dict):
        if value.get("format") == "duration":
            return dict(_DURATION)  # without the default, which pydantic has in another form
        if value.get("format") == "date-time":
            return dict(_MOMENT)
        return {_BOUNDS.get(key, key): _as_written(part) for key, part in value.items()}
    return [_as_written(part) for part in value] if isinstance(value, list) else value
