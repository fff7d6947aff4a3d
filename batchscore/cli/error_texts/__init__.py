"""What `batchscore help BS-NNN` says of each error: what brings it about, and what to do. Imported by that command alone.

The catalogue (`errors.CATALOGUE`) has number and meaning; here is what somebody needs at three in the morning, in a module for
each hundred of numbers. ``EXITS`` there are the exit codes of those that lead to another one than their like.
"""

from __future__ import annotations

from typing import Final

from batchscore.cli.error_texts import bundles, cluster, inputs, operator, queue, running
from batchscore.cli.error_texts.advice import ANYWHERE, BEFORE, Advice
from batchscore.errors import CATALOGUE

ADVICE: Final[dict[str, Advice]] = {
    **operator.ADVICE,
    **inputs.ADVICE,
    **bundles.ADVICE,
    **running.ADVICE,
    **cluster.ADVICE,
    **queue.ADVICE,
}
_EXITS: Final = {**inputs.EXITS, **bundles.EXITS, **running.EXITS, **cluster.EXITS}


def exits(reason: str) -> str:
    """Which exit code this reason leads to, in words."""
    number = CATALOGUE[reason][0]
    return _EXITS.get(reason) or (ANYWHERE if 200 <= number < 400 else BEFORE)
