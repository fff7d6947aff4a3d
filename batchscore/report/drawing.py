"""Draws a page of HTML from a template beside this module: one file that needs nothing else, everything in it escaped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

MAX_CHARS: Final = 400  # of one text from outside
_FOLDER: Final = Path(__file__).parent


def draw(
    template: str, given: Mapping[str, Any], filters: Mapping[str, Callable[..., Any]], *, plain: Callable[[str], str]
) -> str:
    """The template's page with our style sheet in it. ``plain`` shows control characters as text; long texts are cut."""

    def finalize(value: Any) -> Any:
        is_text = isinstance(value, str) and not hasattr(value, "__html__")  # what a macro gave is escaped already
        return plain(_cut(value)) if is_text else value

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=finalize)
    environment.filters.update(filters)
    style = Markup((_FOLDER / "style.css").read_text(encoding="utf-8"))  # noqa: S704 (a file of ours, and no text from outside)
    return environment.from_string((_FOLDER / template).read_text(encoding="utf-8")).render(given, style=style)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + "…"
