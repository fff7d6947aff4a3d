"""A model's trees as one list of nodes, and where in a table each leaf's terms stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from batchscore.models.forest import NotCompilable

NARROW: Final = 8  # levels of a tree, and so lanes of an entry: one AVX register
WIDE: Final = 16
_FLOAT_BYTES: Final = 4

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Nodes:
    """The nodes that ways lead to, N of T trees, tree after tree, each level by level from its root; children are side by side.

    ``root`` int64 (T + 1,): each tree's first, and the end. ``tree``, ``level`` (N,). ``child`` (N,): the left one, the right
    follows; -1 of a leaf. ``value`` float32: a split's cut, a leaf's value. ``missing_right`` uint8. ``cover`` float32: the sum
    of hessians of the rows of training that came by. ``place``: of a node among all that the file has.

    A leaf at level d has 2^d *patterns*: bit l is 1 where the split at level l sends a row towards it. Each has an entry, and
    ``first_entry`` is the leaf's first. But a *fork*, a split with nothing but two leaves, keeps their entries together, as they
    are read: for each pattern above it, for each side that a row may go to, that side's leaf and then the other. So
    ``first_entry`` of both leaves is the fork's own; of other splits it is -1. ``fork``: of such a leaf, its split, else -1.
    """

    root: Array
    tree: Array
    level: Array
    child: Array
    feature: Array
    value: Array
    missing_right: Array
    cover: Array
    place: Array
    fork: Array
    first_entry: Array
    n_entries: int
    lanes: int

    @classmethod
    def of(cls, trees: Sequence[Any], max_bytes: int) -> Nodes:
        """All of ``trees``.

        Raises:
            NotCompilable: a tree has more than `WIDE` levels, or the entries more than ``max_bytes``.
        """

        def joined(name: str, kind: npt.DTypeLike) -> Array:
            return np.concatenate([np.asarray(tree[name], kind) for tree in trees])

        sizes = np.array([len(tree["left_children"]) for tree in trees])
        # Of n leaves at levels d, the sum of 2^d is n^2 or more (Cauchy and Schwarz; the sum of 2^-d is 1): so what is far too
        # large is known before anything is made. Pruned nodes are no leaves.
        pruned = np.array([int(tree["tree_param"].get("num_deleted") or 0) for tree in trees])
        n_leaves = np.maximum(sizes - pruned + 1, 0) // 2
        if int((n_leaves**2).sum()) * NARROW * _FLOAT_BYTES > max_bytes:
            raise NotCompilable
        first = np.cumsum(sizes) - sizes
        left, right = (joined(name, np.int64) for name in ("left_children", "right_children"))
        places, owners, children = [first], [np.arange(len(trees))], [np.empty(0, np.int64)]
        n = n_entries = 0
        while len(level := places[-1]):
            inner, depth, n = left[level] >= 0, len(places) - 1, n + len(level)
            n_entries += int((~inner).sum()) << depth
            at_least = n_entries + (int(inner.sum()) << depth + 2)  # below a split are two leaves or more
            if depth > WIDE or at_least * _lanes(depth) * _FLOAT_BYTES > max_bytes:
                raise NotCompilable
            children.append(np.where(inner, n + 2 * (np.cumsum(inner) - 1), -1))
            below = np.stack([left[level[inner]], right[level[inner]]], axis=-1) + first[owners[-1][inner]][:, None]
            places.append(below.reshape(-1))
            owners.append(np.repeat(owners[-1][inner], 2))
        owner, child = np.concatenate(owners), np.concatenate(children)
        order = np.argsort(owner, kind="stable")  # children stay side by side
        moved = np.empty(n, np.int64)
        moved[order] = np.arange(n)
        child = np.where(child >= 0, moved[child], -1)[order]
        level = np.repeat(np.arange(len(places)), [len(held) for held in places])[order]
        place = np.concatenate(places)[order]
        fork, first_entry = _entries(child, level)
        return cls(
            root=np.append(moved[: len(trees)], n),
            tree=owner[order],
            level=level,
            child=child,
            feature=np.where(child < 0, 0, joined("split_indices", np.int64)[place]),
            value=joined("split_conditions", np.float32)[place],
            missing_right=(~joined("default_left", np.bool_)[place]).astype(np.uint8),
            cover=joined("sum_hessian", np.float32)[place],
            place=place,
            fork=fork,
            first_entry=first_entry,
            n_entries=n_entries,
            lanes=_lanes(len(places) - 2),
        )

    @property
    def n_leaves(self) -> int:
        """Of all trees."""
        return int((self.child < 0).sum())

    def entries(self, leaf: Array, n_patterns: int) -> Array:
        """The entry of each pattern of leaves of one level, (n, ``n_patterns``)."""
        pattern = np.arange(n_patterns)
        alone = self.first_entry[leaf][:, None] + pattern
        above, towards = pattern & (n_patterns // 2 - 1), pattern >= n_patterns // 2
        fork = self.fork[leaf]
        is_right = (leaf > self.child[fork])[:, None]
        forked = self.first_entry[leaf][:, None] + 4 * above + 2 * (is_right == towards) + ~towards
        return np.where((fork >= 0)[:, None], forked, alone)


def _lanes(n_levels: int) -> int:
    return NARROW if n_levels <= NARROW else WIDE


def _entries(child: Array, level: Array) -> tuple[Array, Array]:
    """The fork that each leaf hangs from, or -1; ``first_entry`` of `Nodes`."""
    inner = np.flatnonzero(child >= 0)
    forks = inner[(child[child[inner]] < 0) & (child[child[inner] + 1] < 0)]
    fork = np.full(len(child), -1)
    fork[child[forks]] = fork[child[forks] + 1] = forks
    taken = np.where((child < 0) & (fork < 0), 1 << level, 0)
    taken[forks] = 4 << level[forks]
    first_entry = np.where(taken > 0, np.cumsum(taken) - taken, -1)
    return fork, np.where(fork >= 0, first_entry[fork], first_entry)
