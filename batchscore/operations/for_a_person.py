"""What a run left is gone or damaged: for whoever only looks, that is no partition to set aside, but a thing to be told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from batchscore.errors import Held, PartitionError


@contextmanager
def told_to_a_person() -> Iterator[None]:
    """A file of the run that cannot be read is `Held`, with the words it has: exit 4, a person must look."""
    try:
        yield
    except PartitionError as error:
        raise Held(error.reason, error.what, where=error.where, remedy=error.remedy) from None
