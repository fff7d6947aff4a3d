"""A model's trees as flat arrays that a kernel can walk, and its cut points as tables that turn a value into small integers.

A node asks whether ``value >= cut``. All cuts that one feature is compared with, sorted, make every value a *bin*: how many
cuts it has reached. A node then asks ``bin > k``, where its cut is the k-th: the same answer for every float32. Bins are kept
in *columns* of bytes, each `SPAN` cuts wide, so that a feature with more cuts has several; and since a missing value goes the
node's default way, there is one column in which it is 0, for nodes that default to the left, and one in which it is 255.

Each tree is cut in two. Its top, at most `TOP_DEPTH` levels, is made complete: where the tree ends early, nodes that
always go left are put in, and all ways out below hold the same value. What hangs below is kept as linked nodes, each with its
children side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from batchscore.models.model_file import ModelFacts

TOP_DEPTH: Final = 6
FANOUT: Final = 16  # cuts compared at once when a value is binned
SPAN: Final = 255  # cuts that a column of bytes can count
NEVER: Final = 255  # the cut of a node that always goes left
MAX_CUTS: Final = 32_767  # of one feature
MAX_LEVELS: Final = 4  # FANOUT ** MAX_LEVELS > MAX_CUTS
ROWS: Final = 256  # rows of one block: their bins stay in the first-level cache

Array = npt.NDArray[Any]


class NotCompilable(ValueError):
    """The model has something these arrays cannot hold exactly; XGBoost itself scores it."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Forest:
    """Arrays of one model, all C-contiguous; their names are the kernel's parameters, in this order.

    Bins. For each of U features used: ``feature`` int32 (U,) its place in a row; ``n_levels`` int32 (U,) of its table, which
    begins at ``table`` int64 (U + 1,) in ``cuts`` float32; ``first_column`` int32 (U + 1,) its columns. For each of C columns:
    ``column_base`` int32 (C,) the cuts before it, ``column_missing`` uint8 (C,) the bin of a missing value in it.

    Trees. For each of T trees, in order of summation: ``depth`` int32 (T,) of its top, 1 to `TOP_DEPTH`; ``n_below`` int32 (T,)
    levels below it; ``first_node`` int64 (T,) in ``node_column`` uint32 and ``node_cut`` uint8; ``first_exit`` int64 (T,) in
    ``exit_value`` float32 and ``exit_node`` uint32, which have an entry for each way out of a top. Columns are given as
    offsets into a block's bins, in rows of `ROWS`. Nodes below: ``below_column`` uint32, ``below_cut`` uint8, ``below_next``
    uint32 (the left child; the right one follows; a leaf is its own left child and never goes right), ``below_value`` float32.
    """

    feature: Array
    n_levels: Array
    table: Array
    cuts: Array
    first_column: Array
    column_base: Array
    column_missing: Array
    depth: Array
    n_below: Array
    first_node: Array
    first_exit: Array
    node_column: Array
    node_cut: Array
    exit_value: Array
    exit_node: Array
    below_column: Array
    below_cut: Array
    below_next: Array
    below_value: Array


@dataclass(frozen=True, slots=True, eq=False)
class _Nodes:
    """The nodes of all trees of a model file, one tree after the other; a node's place among them is its number.

    ``root`` (T,) is each tree's first. For a leaf, ``left`` is -1 and ``condition`` its value.
    """

    root: Array
    left: Array
    right: Array
    feature: Array
    condition: Array
    default_left: Array

    @classmethod
    def of(cls, trees: Sequence[Any]) -> _Nodes:
        def joined(name: str, kind: npt.DTypeLike) -> Array:
            return np.concatenate([np.asarray(tree[name], kind) for tree in trees])

        sizes = np.array([len(tree["left_children"]) for tree in trees])
        root = np.cumsum(sizes) - sizes
        first = np.repeat(root, sizes)
        left, right = (joined(name, np.int64) for name in ("left_children", "right_children"))
        return cls(
            root,
            np.where(left < 0, -1, left + first),
            np.where(right < 0, -1, right + first),
            joined("split_indices", np.int64),
            joined("split_conditions", np.float32),
            joined("default_left", np.bool_),
        )

    def levels(self) -> Array:
        """Splits on the longest way to a leaf, of each tree, int64 (T,)."""
        deepest = np.zeros(len(self.root), np.int64)
        tree, node = np.arange(len(self.root)), self.root
        for depth in range(len(self.left)):
            deepest[tree] = depth
            inner = self.left[node] >= 0
            tree, node = np.repeat(tree[inner], 2), self.below(node[inner])
            if not len(node):
                break
        return deepest

    def below(self, inner: Array) -> Array:
        """Both children of each of those nodes, side by side."""
        return np.stack([self.left[inner], self.right[inner]], axis=-1).reshape(-1)


def read_forest(facts: ModelFacts, n_rounds: int) -> Forest:
    """The first ``n_rounds`` rounds of a model that `model_file` has let pass.

    Raises:
        NotCompilable: the model splits on categories, a cut or leaf is not finite, or a feature has more than `MAX_CUTS` cuts.
    """
    if facts.categories:
        raise NotCompilable
    per_round = facts.n_trees // facts.n_rounds
    nodes = _Nodes.of(facts.trees[: n_rounds * per_round])
    if not np.isfinite(nodes.condition).all():
        raise NotCompilable
    bins = _Bins(nodes)
    return Forest(**bins.arrays(), **_laid_out(nodes, bins))


class _Bins:
    """The cuts of each feature, the columns that nodes need, and what each node asks: ``offset`` of its column, ``cut`` in it."""

    def __init__(self, nodes: _Nodes) -> None:
        inner = nodes.left >= 0
        place = np.zeros(len(inner), np.int64)
        self._cuts: dict[int, Array] = {}
        for used in np.unique(nodes.feature[inner]).tolist():
            asking = np.flatnonzero(inner & (nodes.feature == used))
            self._cuts[used], place[asking] = np.unique(nodes.condition[asking], return_inverse=True)
        if any(len(cuts) > MAX_CUTS for cuts in self._cuts.values()):
            raise NotCompilable
        wanted = np.stack([nodes.feature, place // SPAN, ~nodes.default_left], axis=1)
        self._columns, column = np.unique(wanted[inner], axis=0, return_inverse=True)
        self.offset, self.cut = np.zeros(len(inner), np.int64), np.full(len(inner), NEVER)
        self.offset[inner], self.cut[inner] = column.reshape(-1) * ROWS, place[inner] % SPAN

    def arrays(self) -> dict[str, Array]:
        """What the kernel bins with."""
        tables = [_table(cuts) for cuts in self._cuts.values()]
        sizes = [sum(map(len, levels)) for levels in tables]
        owner, span, right = self._columns.T
        return {
            "feature": np.array(list(self._cuts), np.int32),
            "n_levels": np.array([len(levels) for levels in tables], np.int32),
            "table": np.cumsum([0, *sizes]).astype(np.int64),
            "cuts": np.concatenate([np.empty(0, np.float32), *(level for levels in tables for level in levels)]),
            "first_column": np.searchsorted(owner, [*self._cuts, np.inf]).astype(np.int32),
            "column_base": (span * SPAN).astype(np.int32),
            "column_missing": np.where(right, SPAN, 0).astype(np.uint8),
        }


def _table(cuts: Array) -> list[Array]:
    """The cuts as a search tree of `FANOUT`: level by level from the top, ``level[j]`` is the last cut of its j-th part.

    What is beyond the cuts is NaN, which no value reaches.
    """
    n_levels = 1
    while FANOUT**n_levels <= len(cuts):  # a bin is at most FANOUT ** n_levels - 1, and at most len(cuts)
        n_levels += 1
    padded = np.full(FANOUT**n_levels, np.nan, np.float32)
    padded[: len(cuts)] = cuts
    return [padded[step - 1 :: step] for step in (FANOUT**below for below in reversed(range(n_levels)))]


def _laid_out(nodes: _Nodes, bins: _Bins) -> dict[str, Array]:
    """What the kernel walks: each tree's complete top in level order, what each way out of it leads to, and what is below."""
    levels = nodes.levels()
    depth = np.clip(levels, 1, TOP_DEPTH)
    n_nodes, n_exits = (1 << depth) - 1, 1 << depth
    first_node, first_exit = np.cumsum(n_nodes) - n_nodes, np.cumsum(n_exits) - n_exits
    top, out = np.zeros(n_nodes.sum(), np.int64), np.zeros(n_exits.sum(), np.int64)
    for deep in np.unique(depth).tolist():
        among = depth == deep
        level = nodes.root[among][:, None]
        for above in range(deep):
            first = first_node[among][:, None] + (1 << above) - 1
            top[first + np.arange(1 << above)] = level
            ends = (nodes.left[level] < 0)[:, :, None]  # where a tree ends early, its leaf is on both sides
            both = np.stack([nodes.left[level], nodes.right[level]], axis=-1)
            level = np.where(ends, level[:, :, None], both).reshape(len(level), -1)
        out[first_exit[among][:, None] + np.arange(1 << deep)] = level
    linked = np.repeat(levels > TOP_DEPTH, n_exits)
    exit_node = np.zeros(len(out), np.uint32)
    exit_node[linked], below = _linked(nodes, bins, out[linked], np.repeat(np.arange(len(depth)), n_exits)[linked])
    return {
        "depth": depth.astype(np.int32),
        "n_below": (np.maximum(levels, TOP_DEPTH) - TOP_DEPTH).astype(np.int32),
        "first_node": first_node,
        "first_exit": first_exit,
        "node_column": bins.offset[top].astype(np.uint32),
        "node_cut": bins.cut[top].astype(np.uint8),
        "exit_value": np.where(linked, np.float32(0), nodes.condition[out]).astype(np.float32),
        "exit_node": exit_node,
        **below,
    }


def _linked(nodes: _Nodes, bins: _Bins, roots: Array, tree: Array) -> tuple[Array, dict[str, Array]]:
    """The nodes from ``roots`` down as linked nodes, those of a ``tree`` together; and the place of each root among them."""
    found, owner, following = [roots], [tree], []
    n = len(roots)
    while len(found[-1]):
        inner = nodes.left[found[-1]] >= 0
        following.append(np.where(inner, n + 2 * (np.cumsum(inner) - 1), -1))  # of a leaf nothing follows
        found.append(nodes.below(found[-1][inner]))
        owner.append(np.repeat(owner[-1][inner], 2))
        n += len(found[-1])
    node, left = np.concatenate(found), np.concatenate([np.empty(0, np.int64), *following])
    order = np.argsort(np.concatenate(owner), kind="stable")  # children stay side by side
    place = np.empty(n, np.int64)
    place[order] = np.arange(n)
    left = np.where(left < 0, place, place[left])[order]
    node = node[order]
    is_leaf = nodes.left[node] < 0
    return place[: len(roots)], {
        "below_column": bins.offset[node].astype(np.uint32),
        "below_cut": bins.cut[node].astype(np.uint8),
        "below_next": left.astype(np.uint32),
        "below_value": np.where(is_leaf, nodes.condition[node], np.float32(0)).astype(np.float32),
    }
