"""What a misspelt name may have been meant to be, for the remedy of a message. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, among: Iterable[str], *, otherwise: str = "") -> str:
    """``did you mean 'x'?`` with the nearest of the names, or ``otherwise`` where none is near. Case does not count."""
    by_folded = {candidate.casefold(): candidate for candidate in sorted(among)}
    near = get_close_matches(name.casefold(), list(by_folded), n=1)
    return f"did you mean {by_folded[near[0]]!r}?" if near else otherwise
