"""What could not be read of a run, in words: a report is wanted most when something is gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from batchscore.errors import BatchscoreError


class Gaps(list[str]):
    """What could not be read, in words."""

    @contextmanager
    def around(self, what: str) -> Iterator[None]:
        """Go on after a failure to read, and remember it. Foreign messages are left out: they may hold a path or a value."""
        try:
            yield
        except BatchscoreError as error:
            self.append(f"{what}: {error.what} [{error.where}]")
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            self.append(f"{what}: cannot be read ({type(error).__name__})")
