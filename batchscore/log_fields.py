"""What every log line of a piece of work says of it: run, stage, partition, attempt. Bound where the work begins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

_NONE: Mapping[str, str | int] = MappingProxyType({})
_fields: ContextVar[Mapping[str, str | int]] = ContextVar("batchscore_log_fields", default=_NONE)


@contextmanager
def bound(**fields: str | int) -> Iterator[None]:
    """Within the block, on this thread, lines carry these fields beside those of the blocks around it."""
    token = _fields.set({**_fields.get(), **fields})
    try:
        yield
    finally:
        _fields.reset(token)


def current() -> Mapping[str, str | int]:
    """The fields that a line written now carries."""
    return _fields.get()
