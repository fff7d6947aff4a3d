"""The proof: every account of every as-of was scored, or set aside under a name, exactly once. By key digest, not by count.

    planned = scored + unscoreable + rejected + quarantined        (per as-of, pairwise disjoint)

``planned`` comes from the freeze, which read every account on its own and hashed the keys, less the accounts that did not
exist at the as-of (``outside``). The other terms come from the score receipts, which read the accounts again, by key range.
Key digests add over disjoint sets, so one lost, doubled or swapped account in any partition breaks the equation. The
frozen keys are distinct (the freeze refuses duplicates), hence equality with them is also what shows disjointness.

Of a history the freeze hashes the key of every row. Whoever reads an account's rows counts the account once, and the others
of its rows as ``repeated``; what is planned is less by those too. A row that is lost or doubled on the way breaks the equation.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from batchscore.digest import KeyDigest, total
from batchscore.receipt import Receipt
from batchscore.values import Value

ACCOUNTS: Final = "accounts"
_FOOTER: Final = "batchscore.keys"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysSetAside:
    """Keys of score partitions that were set aside: accounts that were planned, that did not exist, further rows of a history."""

    planned: KeyDigest = field(default_factory=KeyDigest)
    outside: KeyDigest = field(default_factory=KeyDigest)
    repeated: KeyDigest = field(default_factory=KeyDigest)

    def with_more(self, other: KeysSetAside) -> KeysSetAside:
        """Both together; they are of disjoint key ranges."""
        return KeysSetAside(
            planned=self.planned + other.planned,
            outside=self.outside + other.outside,
            repeated=self.repeated + other.repeated,
        )


class AsOfProof(Value):
    """One as-of: key digests as text. ``lost`` is ``planned`` less the parts; it is the empty set when the proof closes."""

    as_of: datetime
    planned: str
    outside: str
    scored: str
    unscoreable: str
    rejected: str
    quarantined: str
    lost: str
    closes: bool


class Proof(Value):
    """All as-ofs of a run, and what was set aside before there was a key to speak of."""

    accounts: str  # key digest of all frozen accounts
    as_ofs: tuple[AsOfProof, ...]
    n_rows_rejected: int  # rows of accounts and events that were rejected while they were read
    n_orphans: int  # events whose account is unknown

    @property
    def closes(self) -> bool:
        """Whether every account of every as-of is accounted for."""
        return all(proof.closes for proof in self.as_ofs)


def key_name(part: str, as_of: datetime) -> str:
    """The name under which a score receipt holds the key digest of ``part``."""
    return f"{part} {as_of.isoformat()}"


def keys_to_footer(keys: Mapping[str, KeyDigest]) -> dict[str, str]:
    """Key and value for a score file's metadata; equal digests give equal text."""
    held = {name: str(digest) for name, digest in keys.items()}
    return {_FOOTER: json.dumps(held, sort_keys=True, separators=(",", ":"))}


def keys_from_footer(metadata: Mapping[bytes, bytes] | None) -> dict[str, str]:
    """The key digests, as text by their names, from what Parquet gives back.

    Raises:
        ValueError: the file holds none.
    """
    held = (metadata or {}).get(_FOOTER.encode())
    if held is None:
        msg = "the file holds no key digests"
        raise ValueError(msg)
    found: dict[str, str] = json.loads(held)
    return found


def prove(
    as_ofs: Iterable[datetime],
    frozen: Iterable[Receipt],
    rolled_up: Iterable[Receipt],
    scored: Iterable[Receipt],
    quarantined: Mapping[datetime, KeysSetAside],
) -> Proof:
    """Fold receipts into a proof; each iterable is read once. ``quarantined``: as-of → what was set aside of it."""
    as_ofs, frozen = sorted(as_ofs), list(frozen)
    rows = total(KeyDigest.parse(receipt.keys[ACCOUNTS]) for receipt in frozen)
    parts: dict[str, KeyDigest] = {}
    n_orphans = 0
    for receipt in scored:
        for name, keys in receipt.keys.items():
            parts[name] = parts.get(name, KeyDigest()) + KeyDigest.parse(keys)
        # Each key range is scored once for every group of as-ofs, and counts its orphans each time: one group is enough.
        n_orphans += receipt.counts.get(key_name("orphans", as_ofs[0]), 0)
    repeated = {
        as_of: parts.get(key_name("repeated", as_of), KeyDigest()) + quarantined.get(as_of, KeysSetAside()).repeated
        for as_of in as_ofs
    }
    return Proof(
        accounts=str(rows - repeated[as_ofs[0]]),
        as_ofs=tuple(
            _prove_as_of(as_of, rows - repeated[as_of], parts, quarantined.get(as_of, KeysSetAside())) for as_of in as_ofs
        ),
        n_rows_rejected=sum(_n_rejected(receipt) for receipt in [*frozen, *rolled_up]),
        n_orphans=n_orphans,
    )


def _prove_as_of(as_of: datetime, accounts: KeyDigest, found: Mapping[str, KeyDigest], set_aside: KeysSetAside) -> AsOfProof:
    def part(name: str) -> KeyDigest:
        return found.get(key_name(name, as_of), KeyDigest())

    outside = part("outside") + set_aside.outside
    parts = {
        "scored": part("scored"),
        "unscoreable": part("unscoreable"),
        "rejected": part("rejected"),
        "quarantined": set_aside.planned,
    }
    planned = accounts - outside
    lost = planned - total(parts.values())
    return AsOfProof(
        as_of=as_of,
        planned=str(planned),
        outside=str(outside),
        lost=str(lost),
        closes=lost == KeyDigest(),
        **{name: str(keys) for name, keys in parts.items()},
    )


def _n_rejected(receipt: Receipt) -> int:
    return sum(n for name, n in receipt.counts.items() if name.startswith("rejected "))
