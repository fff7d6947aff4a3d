"""How a value shows itself in a notebook and at a prompt: a title, facts, tables. All text is escaped; nothing is loaded. Pure.

`Showable` gives a class ``_repr_html_``, which Jupyter asks for, and ``__repr__``, for a terminal and a debugger. Both are short
whatever the value holds, and have no style of their own, so a notebook's light and dark are what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

MAX_ROWS: Final = 40  # of one table
MAX_CHARS: Final = 200  # of one text


@dataclass(frozen=True, slots=True)
class ShownTable:
    """``rows`` may be more than are shown."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Shown:
    """``title`` and ``facts`` (name, value) stand in both forms; ``tables`` in HTML alone."""

    title: str
    facts: Sequence[tuple[str, str]]
    tables: Sequence[ShownTable] = ()


class Showable:
    """A value that shows itself, by what its ``shown`` returns."""

    def shown(self) -> Shown:
        """What there is to show."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        return html_of(self.shown())

    def __repr__(self) -> str:
        return text_of(self.shown())


def html_of(shown: Shown) -> str:
    """A fragment of HTML."""
    facts = "".join(f"<tr><th style='text-align:left'>{_cell(name)}</th>{_td(value)}</tr>" for name, value in shown.facts)
    tables = "".join(map(_table, shown.tables))
    return f"<div><p><b>{_cell(shown.title)}</b></p><table><tbody>{facts}</tbody></table>{tables}</div>"


def text_of(shown: Shown) -> str:
    """Lines of text; the first is the title."""
    wide = max((len(name) for name, _ in shown.facts), default=0)
    return "\n".join([_cut(shown.title), *(f"  {_cut(name):<{wide}}  {_cut(value)}" for name, value in shown.facts)])


def plain(text: str) -> str:
    """``text`` with every control character but the line feed shown as an escape, so that nothing moves the cursor."""
    return "".join(char if char == "\n" or char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def _table(table: ShownTable) -> str:
    head = "".join(f"<th style='text-align:left'>{_cell(column)}</th>" for column in table.columns)
    rows = "".join(f"<tr>{''.join(map(_td, row))}</tr>" for row in table.rows[:MAX_ROWS])
    left = len(table.rows) - MAX_ROWS
    more = f"<p>{left:,} more rows are not shown</p>" if left > 0 else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{more}"


def _td(value: str) -> str:
    return f"<td style='text-align:left'>{_cell(value)}</td>"


def _cell(value: str) -> str:
    return escape(_cut(value))


def _cut(value: str) -> str:
    """On one line, and not long; a line feed would break it as any control character."""
    shown = plain(value).replace("\n", "\\n")
    return shown if len(shown) <= MAX_CHARS else shown[: MAX_CHARS - 1] + "…"
