"""Checks a document against the part of JSON Schema that we print; any other keyword is an error, so nothing goes unseen."""

from __future__ import annotations

import re
from typing import Any

_TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
_SAID = {"title", "description", "default", "$schema", "$defs", "format", "discriminator"}


def faults(value: Any, schema: dict[str, Any], root: dict[str, Any], at: str = "") -> list[str]:
    """Where ``value`` breaks ``schema``; empty when it does not."""
    found: list[str] = []
    for keyword, rule in schema.items():
        if keyword not in _SAID:
            found += _fault(keyword, rule, value, schema, root, at)
    return found


def _fault(keyword: str, rule: Any, value: Any, schema: dict[str, Any], root: dict[str, Any], at: str) -> list[str]:  # noqa: C901, PLR0911, PLR0912
    match keyword:
        case "$ref":
            return faults(value, root["$defs"][rule.rpartition("/")[2]], root, at)
        case "type":
            return [] if _is(value, rule) else [f"{at}: is no {rule}"]
        case "anyOf":
            return [] if any(not faults(value, one, root, at) for one in rule) else [f"{at}: none of anyOf"]
        case "oneOf":
            return [] if sum(not faults(value, one, root, at) for one in rule) == 1 else [f"{at}: not one of oneOf"]
        case "const":
            return [] if value == rule else [f"{at}: is not {rule!r}"]
        case "enum":
            return [] if value in rule else [f"{at}: is none of {rule}"]
        case "pattern":
            return [] if not isinstance(value, str) or re.search(rule, value) else [f"{at}: does not match"]
        case "minimum" | "exclusiveMinimum":
            return [] if not isinstance(value, (int, float)) or value >= rule else [f"{at}: is below {rule}"]
        case "maximum":
            return [] if not isinstance(value, (int, float)) or value <= rule else [f"{at}: is above {rule}"]
        case "minLength" | "minItems" | "minProperties":
            return [] if not hasattr(value, "__len__") or len(value) >= rule else [f"{at}: is shorter than {rule}"]
        case "maxLength" | "maxItems":
            return [] if not hasattr(value, "__len__") or len(value) <= rule else [f"{at}: is longer than {rule}"]
        case "required":
            return [f"{at}: lacks {name}" for name in rule if isinstance(value, dict) and name not in value]
        case "properties":
            return _each(value, rule.get, root, at)
        case "patternProperties":
            return _each(value, lambda name: next((one for like, one in rule.items() if re.search(like, name)), None), root, at)
        case "propertyNames":
            return [fault for name in _keys(value) for fault in faults(name, rule, root, f"{at}.{name}")]
        case "items":
            held = value if isinstance(value, list) else []
            return [fault for place, one in enumerate(held) for fault in faults(one, rule, root, f"{at}[{place}]")]
        case "prefixItems":
            pairs = list(zip(value, rule, strict=False)) if isinstance(value, list) else []
            return [fault for place, (one, of) in enumerate(pairs) for fault in faults(one, of, root, f"{at}[{place}]")]
        case "additionalProperties":
            known = schema.get("properties", {})
            extra = [name for name in _keys(value) if name not in known]
            if rule is False:
                return [f"{at}: unknown key {name}" for name in extra]
            return [] if rule is True else [fault for name in extra for fault in faults(value[name], rule, root, f"{at}.{name}")]
    return [f"{at}: the keyword {keyword} is not known here"]


def _is(value: Any, kind: str) -> bool:
    if kind in {"integer", "number"}:
        return isinstance(value, int if kind == "integer" else (int, float)) and not isinstance(value, bool)
    return isinstance(value, _TYPES[kind])


def _keys(value: Any) -> list[str]:
    return list(value) if isinstance(value, dict) else []


def _each(value: Any, schema_of: Any, root: dict[str, Any], at: str) -> list[str]:
    found = []
    for name in _keys(value):
        rule = schema_of(name)
        if rule is not None:
            found += faults(value[name], rule, root, f"{at}.{name}")
    return found
