"""Whose turn it is on a worker's thread: an attempt that has nothing left to do but wait for the disk gives its turn up.

An executor that can begin another attempt meanwhile says how; an attempt says when, and need not know whether anybody listens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_given_up: Final[ContextVar[Callable[[], None] | None]] = ContextVar("given_up", default=None)


@contextmanager
def turn(given_up: Callable[[], None]) -> Iterator[None]:
    """Within the block, `give_up_turn` calls ``given_up`` once."""
    before = _given_up.set(given_up)
    try:
        yield
    finally:
        _given_up.reset(before)


def give_up_turn() -> None:
    """Let another attempt begin on this core; this one goes on beside it, and should ask for little more than the disk."""
    given_up = _given_up.get()
    if given_up is not None:
        _given_up.set(None)
        given_up()
