"""The sample below the line: accounts drawn at random among all that are not flagged, with known probability. Pure.

What nobody reviews nobody knows, so a share of the budget is drawn, in *strata*: the reserve, then bands of the score. Within one
every account is as likely as any other: drawn are those of the smallest hashes of (seed, account), which is the same sample for
any order and cut of the scores. The seed is of the plan, so a retry draws whom the run drew, and another plan draws others.

Bands begin as those between `EDGES` and are joined until each is worth a few draws; a stratum gets draws after the square root of
how many are in it times how many abusive ones its scores let expect (Neyman's allocation for a rare thing), at least `LEAST`.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batchscore.decide.best import SCORED, Places, at_least, widened
from batchscore.keys import ACCOUNT_ID, hash64

EDGES: Final = (0.01, 0.05, 0.2, 0.5)
LEAST: Final = 2  # draws of a stratum
WORTH: Final = 8  # draws that a band must be worth to stand by itself
RESERVE: Final = "reserve"
_MIDDLES: Final = tuple((low + high) / 2 for low, high in pairwise((0.0, *EDGES, 1.0)))
_SEED_BYTES: Final = 8
_MOST_WAITING: Final = 4_096
_NO_BAND: Final = len(_MIDDLES)  # of whom no band holds


@dataclass(frozen=True, kw_only=True, slots=True)
class Stratum:
    """A part of what is not flagged: ``n`` accounts, of which ``n_drawn`` were drawn. ``name``: reserve, or a band of scores."""

    name: str
    n: int
    n_drawn: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """``table``: account_id, score, margin, stratum (text), probability; by account. ``strata``: all that hold anybody."""

    table: pa.Table
    strata: tuple[Stratum, ...]


def seed_of(text: str, as_of: datetime) -> np.uint64:
    """A seed of a plan's digest and an as-of."""
    held = hashlib.sha256(f"{text} {as_of.isoformat()}".encode()).digest()
    return np.uint64(int.from_bytes(held[:_SEED_BYTES], "little"))


class Lots:
    """Of the accounts that it is offered, those that a sample of ``n`` could draw: of each band those of the smallest hashes."""

    def __init__(self, n: int, seed: np.uint64) -> None:
        self.n, self.seed = n, seed
        self._bands = [_Smallest(n) for _ in _MIDDLES]
        self._waiting: list[pa.Table] = []  # near rows of several tables: many small sorts cost more than the scores
        self._n_waiting = 0

    def offer(self, table: pa.Table, but_not: Places) -> None:
        """More accounts (account_id, score, margin), each once, but for those at the places ``but_not`` and without a score."""
        bands = _bands_of(table["score"].to_numpy())
        bands[but_not] = _NO_BAND
        for band, count in zip(self._bands, np.bincount(bands, minlength=len(self._bands)).tolist(), strict=False):
            band.n += count
        hashes = hash64(table[ACCOUNT_ID].combine_chunks(), self.seed)
        largest = np.array([*(band.largest for band in self._bands), 0], np.uint64)
        near = np.flatnonzero(hashes <= largest[bands])  # of 10M scores a few thousand
        near = near[bands[near] != _NO_BAND]
        rows = table.select(SCORED).take(near)
        self._waiting.append(rows.append_column("hash", pa.array(hashes[near])).append_column("band", pa.array(bands[near])))
        self._n_waiting += len(near)
        if self._n_waiting > _MOST_WAITING:
            self._part()

    def table(self) -> pa.Table | None:
        """Whom it could draw: account_id, score, margin; at most ``n`` of a band. None where it was offered nobody."""
        self._part()
        held = [band.smallest(self.n) for band in self._bands if band.n]
        return pa.concat_tables(held) if held else None

    def bands(self) -> list[_Smallest]:
        """The bands, from the lowest."""
        self._part()
        return self._bands

    def _part(self) -> None:
        """Give each band its rows of those that wait."""
        if self._waiting:
            together = pa.concat_tables(self._waiting).combine_chunks()
            places = together["band"].to_numpy()
            for number, band in enumerate(self._bands):
                band.keep(together.take(np.flatnonzero(places == number)).drop_columns(["band"]))
        self._waiting, self._n_waiting = [], 0


def draw(lots: Lots, reserve: pa.Table) -> Drawn:
    """Draw as many as the lots are for, or all where there are fewer. The lots are used up.

    Args:
        lots: Were offered all who have a score but for whom their score selected, and for the reserve.
        reserve: The reserve (account_id, score, margin): a stratum of its own.
    """
    n = lots.n
    first = _Smallest(n)
    of_reserve = hash64(reserve[ACCOUNT_ID].combine_chunks(), lots.seed)
    first.n = len(reserve)
    first.keep(reserve.select(SCORED).append_column("hash", pa.array(of_reserve)))
    strata = [(RESERVE, first, float(np.sum(widened(reserve))))] if len(reserve) else []
    strata += _joined(lots.bands(), n, most=max(1, n - len(strata)))
    shares = _allocated([(held.n, expected) for _, held, expected in strata], n)
    tables = [
        held.smallest(k).append_column("stratum", pa.repeat(name, k)).append_column("probability", pa.repeat(k / held.n, k))
        for (name, held, _), k in zip(strata, shares, strict=True)
    ]
    empty = reserve.select(SCORED).slice(0, 0)
    nobody = empty.append_column("stratum", pa.array([], pa.string())).append_column("probability", pa.array([], pa.float64()))
    found = tuple(Stratum(name=name, n=held.n, n_drawn=k) for (name, held, _), k in zip(strata, shares, strict=True))
    return Drawn(table=pa.concat_tables([nobody, *tables]).sort_by(ACCOUNT_ID).combine_chunks(), strata=found)


def interleaved(n_flags: int, drawn: pa.Array, seed: np.uint64) -> tuple[list[int], list[int]]:
    """Ranks from 1 of ``n_flags`` in their order, and of the accounts drawn, which stand where chance puts them."""
    spread = 2.0**64
    chances = hash64(drawn, seed ^ np.uint64(1)).astype(np.float64) / spread
    keys = np.concatenate([(np.arange(n_flags) + 0.5) / max(1, n_flags), chances])
    ranks = np.empty(len(keys), np.int64)
    ranks[np.argsort(keys, kind="stable")] = np.arange(1, len(keys) + 1)
    return ranks[:n_flags].tolist(), ranks[n_flags:].tolist()


def _bands_of(scores: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int8]:
    """The band of each score, from the lowest; `_NO_BAND` for NaN. Made anew: the caller may write into it."""
    places = np.zeros(len(scores), np.int8)
    for edge in EDGES:
        places += at_least(scores, edge)
    places[np.isnan(scores)] = _NO_BAND
    return places


class _Smallest:
    """``n`` accounts, and of these the ``most`` with the smallest hashes, of which none exceeds ``largest``."""

    def __init__(self, most: int) -> None:
        self.n = 0
        self.largest: np.uint64 = np.uint64(np.iinfo(np.uint64).max)
        self._most = most
        self._held: pa.Table | None = None

    def keep(self, near: pa.Table) -> None:
        """More accounts (account_id, score, margin, hash): of all that were not seen yet, at least those up to ``largest``."""
        if self._held is not None and not len(near):
            return
        found = pa.concat_tables([*([] if self._held is None else [self._held]), near])
        found = found.sort_by([("hash", "ascending"), (ACCOUNT_ID, "ascending")]).slice(0, self._most).combine_chunks()
        self._held = found
        if 0 < len(found) == self._most:
            self.largest = np.uint64(found["hash"][-1].as_py())

    def join(self, other: _Smallest) -> None:
        """Take in what another holds."""
        self.n += other.n
        if other._held is not None:
            self.keep(other._held)

    def smallest(self, k: int) -> pa.Table:
        """Of the ``k`` smallest hashes: account_id, score, margin."""
        assert self._held is not None, "a stratum has somebody"
        return self._held.slice(0, k).drop_columns(["hash"])


def _joined(bands: list[_Smallest], n: int, most: int) -> list[tuple[str, _Smallest, float]]:
    """(name, accounts, abusive ones to expect) of bands with anybody in them, from the lowest, each worth some draws.

    At most so many, so that each gets a draw: of a stratum in which nobody is drawn nobody knows anything.
    """
    edges = (0.0, *EDGES, 1.0)
    worth = [math.sqrt(band.n * band.n * middle) for band, middle in zip(bands, _MIDDLES, strict=True)]
    least = sum(worth) * WORTH / max(1, n)
    found: list[tuple[float, float, _Smallest, float]] = []
    low, gathered, so_far, expected = 0, None, 0.0, 0.0
    for number, band in enumerate(bands):
        if gathered is None:
            low, gathered, so_far, expected = number, band, 0.0, 0.0
        else:
            gathered.join(band)
        so_far, expected = so_far + worth[number], expected + band.n * _MIDDLES[number]
        is_last = number == len(bands) - 1
        if gathered.n and (so_far >= least or is_last):
            found.append((edges[low], edges[number + 1], gathered, expected))
            gathered = None
    while len(found) > most:
        at = min(range(len(found) - 1), key=lambda place: (found[place][3] + found[place + 1][3], place))
        (bottom, _, first, some), (_, top, second, more) = found[at : at + 2]
        first.join(second)
        found[at : at + 2] = [(bottom, top, first, some + more)]
    return [(f"{bottom:g}–{top:g}", held, expected) for bottom, top, held, expected in found]


def _allocated(strata: list[tuple[int, float]], n: int) -> list[int]:
    """Draws of each stratum of (accounts, expected): together ``n``, or all there are; each at least `LEAST` if it can."""
    weights = [math.sqrt(size * max(expected, 1e-9)) for size, expected in strata]
    least = [min(size, LEAST) for size, _ in strata]
    sizes, whole = [size for size, _ in strata], sum(weights)
    shares = [min(size, max(low, int(n * weight / whole))) for size, low, weight in zip(sizes, least, weights, strict=True)]
    while sum(shares) > n and any(share > low for share, low in zip(shares, least, strict=True)):
        most = max(range(len(shares)), key=lambda place: (shares[place] - least[place], place))
        shares[most] -= 1
    while sum(shares) > n:  # fewer draws than strata need: the largest strata keep theirs, and each keeps one
        fewest = min((place for place in range(len(shares)) if shares[place] > 1), key=lambda place: strata[place][0])
        shares[fewest] -= 1
    while sum(shares) < n and any(share < size for share, (size, _) in zip(shares, strata, strict=True)):
        free = [place for place in range(len(shares)) if shares[place] < strata[place][0]]
        shares[max(free, key=lambda place: (weights[place] / (shares[place] + 1), place))] += 1
    return shares
