"""Stretches of as-ofs: what a window does with rows that each count for one unbroken stretch of them, in one pass over all.

Sums add a row where its stretch begins and take it away where it ends; extremes lay it over its stretch by two powers of two;
pairs of an account and a key are counted up and down. Of one as-of alone, which a sweep has every night, rows of an account stand
together and are reduced run by run: the same integers and the same extremes. Nothing here knows of features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batchscore.features.exact import Column, Ints, reduced, run_starts

Words = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Stretches:
    """Rows (or entries of rows), and the as-ofs each counts for: from ``begin`` to before ``stop``, never none.

    ``row``: which rollup row. ``owner``: whose, an account's position, ascending. ``shape``: (n_as_ofs, n_accounts).
    """

    row: Ints
    owner: Ints
    begin: Ints
    stop: Ints
    shape: tuple[int, int]

    def among(self, mask: Mask) -> Stretches:
        """Those of the rollup rows that pass."""
        chosen = mask[self.row]
        if chosen.all():
            return self
        return Stretches(self.row[chosen], self.owner[chosen], self.begin[chosen], self.stop[chosen], self.shape)

    def added(self, values: Ints) -> Ints:
        """The sum of an account's ``values`` at each as-of, modulo 2^64."""
        n_as_ofs, n_accounts = self.shape
        grid = np.zeros(self.shape, np.int64)
        if n_as_ofs == 1:
            starts = run_starts(self.owner)
            grid[0, self.owner[starts]] = reduced(np.add, values, starts)
            return grid
        cells = grid.reshape(-1)
        np.add.at(cells, self.begin * n_accounts + self.owner, values)
        ending = np.flatnonzero(self.stop < n_as_ofs)
        np.subtract.at(cells, self.stop[ending] * n_accounts + self.owner[ending], values[ending])
        np.cumsum(grid, axis=0, out=grid)
        return grid

    def largest(self, values: Column, nothing: float) -> Column:
        """The largest of an account's ``values`` at each as-of; ``nothing``, which is below all of them, where there is none.

        A stretch of length l is two of 2^⌊log2 l⌋, laid down on the level of that power; then each level is halved into the
        one below (Bender and Farach-Colton's sparse table, turned round).
        """
        n_as_ofs, n_accounts = self.shape
        grid = np.full(self.shape, nothing, values.dtype)
        if n_as_ofs == 1:
            starts = run_starts(self.owner)
            grid[0, self.owner[starts]] = reduced(np.maximum, values, starts)
            return grid
        level = np.frexp((self.stop - self.begin).astype(np.float64))[1] - 1
        for power in range(int(n_as_ofs).bit_length() - 1, -1, -1):
            rows, cells = np.flatnonzero(level == power), grid.reshape(-1)
            np.maximum.at(cells, self.begin[rows] * n_accounts + self.owner[rows], values[rows])
            if power:
                np.maximum.at(cells, (self.stop[rows] - (1 << power)) * n_accounts + self.owner[rows], values[rows])
                half, upper = 1 << (power - 1), grid.copy()
                np.maximum(grid[half:], upper[:-half], out=grid[half:])
        return grid


class Pairs:
    """Different (account, key) pairs, how much each weighs as the as-ofs pass, and so which are there at each."""

    def __init__(self, entries: Stretches, keys: Column, weights: Ints) -> None:
        """``keys`` ascend within each account of ``entries``; a pair weighs what its entries do at an as-of, together."""
        starts = run_starts(entries.owner, keys)
        self._entries = entries
        self._weights = weights
        self._pair = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(keys)))
        self._keys = keys[starts]
        owner = entries.owner[starts]
        self._firsts = run_starts(owner)
        self._accounts = owner[self._firsts]
        self._weight = np.zeros(len(starts), np.int64)

    def steps(self) -> Iterator[Ints]:
        """At each as-of in turn, how many pairs of each account are there, (n_accounts,)."""
        n_as_ofs, _ = self._entries.shape
        coming, going = (_by_step(edge, n_as_ofs) for edge in (self._entries.begin, self._entries.stop))
        for step in range(n_as_ofs):
            for ufunc, entries in ((np.add, coming[step]), (np.subtract, going[step])):
                ufunc.at(self._weight, self._pair[entries], self._weights[entries])
            yield self._of_each((self._weight > 0).astype(np.int64), np.add)

    def most(self) -> Ints:
        """The weight of each account's heaviest pair at the as-of that `steps` came to; 0 where it has none."""
        return self._of_each(self._weight, np.maximum)

    def smallest_but(self, n: int, accounts: Ints) -> Words:
        """The smallest key but ``n`` that is there, of each of ``accounts``, which have more than ``n``."""
        there = np.cumsum(self._weight > 0)
        first = self._firsts[np.searchsorted(self._accounts, accounts)]
        before: Ints = there[first] - (self._weight[first] > 0)
        found: Words = self._keys[np.searchsorted(there, before + n + 1)]
        return found

    def _of_each(self, values: Ints, function: np.ufunc) -> Ints:
        found = np.zeros(self._entries.shape[1], np.int64)
        found[self._accounts] = reduced(function, values, self._firsts)
        return found


def _by_step(edge: Ints, n_steps: int) -> list[Ints]:
    """The entries whose ``edge`` is each step."""
    order = np.argsort(edge.astype(np.int32), kind="stable")
    return np.split(order, np.searchsorted(edge[order], np.arange(1, n_steps + 1)))[:n_steps]
