"""What `init` reports. Values: nothing is read or written here."""

from __future__ import annotations

from batchscore.values import Value


class Guessed(Value):
    """A role (``accounts.key``), the column it was given (empty: none), and why."""

    of: str
    column: str
    why: str


class Started(Value):
    """init: the files and folders written, what was guessed of the columns, and the commands that come next."""

    folder: str
    sample: bool
    written: tuple[str, ...]
    guessed: tuple[Guessed, ...]
    next: tuple[str, ...]
