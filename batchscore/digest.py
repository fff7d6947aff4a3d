"""Digests: of values, of sets of account ids. Pure standard library; files are hashed in `files`.

A *value digest* is the SHA-256 of canonical JSON, so that a plan or feature set has the same name on every machine.
A *key digest* names a set of account ids in a way that adds: the digest of two disjoint sets together is the sum of
theirs. That is what lets the proof say "planned = scored + unscoreable + rejected + quarantined" about keys, not counts,
without bringing the keys together in one place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

_LANE: Final = 1 << 64


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys, no spaces, dates as ISO text: the same bytes for equal values.

    Raises:
        ValueError: a float is NaN or infinite: such a value has no canonical form.
        TypeError: the value holds something JSON and dates cannot express.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_plain).encode()


def _plain(value: object) -> object:
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    msg = f"{type(value).__name__} has no canonical JSON form"
    raise TypeError(msg)


def digest_of(value: Any) -> str:
    """SHA-256 (64 hex) of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


@dataclass(frozen=True, slots=True)
class KeyDigest:
    """A set of account ids, named by its size and two sums modulo 2^64 of independent hashes of each id.

    A multiset hash in the style of AdHash (Bellare and Micciancio, 1997), unkeyed: it finds every lost, doubled or
    swapped key that a fault can produce; it is no defence against somebody who picks ids to collide. `keys.key_digest`
    computes it from Arrow.
    """

    n: int = 0
    lane_a: int = 0
    lane_b: int = 0

    def __add__(self, other: KeyDigest) -> KeyDigest:
        return KeyDigest(self.n + other.n, (self.lane_a + other.lane_a) % _LANE, (self.lane_b + other.lane_b) % _LANE)

    def __sub__(self, other: KeyDigest) -> KeyDigest:
        return KeyDigest(self.n - other.n, (self.lane_a - other.lane_a) % _LANE, (self.lane_b - other.lane_b) % _LANE)

    def __str__(self) -> str:
        return f"{self.n}:{self.lane_a:016x}{self.lane_b:016x}"

    @classmethod
    def parse(cls, text: str) -> KeyDigest:
        """The inverse of ``str``."""
        n, lanes = text.split(":")
        return cls(int(n), int(lanes[:16], 16), int(lanes[16:], 16))


def total(digests: Iterable[KeyDigest]) -> KeyDigest:
    """The key digest of a disjoint union."""
    result = KeyDigest()
    for digest in digests:
        result = result + digest
    return result
