"""Tables, lines and cells for a terminal. Text from outside is shown as text; no line is broken where a terminal ends."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from batchscore.observe.text import plain


def table(*columns: str, words: frozenset[str] = frozenset()) -> Table:
    """A table without lines; the first column and those named in ``words`` are text, the others are figures."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        made.add_column(column, justify="left" if number == 0 or column in words else "right", overflow="fold")
    return made


def text(value: str) -> Text:
    """A cell of text."""
    return Text(plain(value))


def line(console: Console, said: str) -> None:
    """One line."""
    console.print(Text(plain(said)), soft_wrap=True)


def number(value: int | None) -> str:
    """A count; a dash for none."""
    return "–" if value is None else f"{value:,}"
