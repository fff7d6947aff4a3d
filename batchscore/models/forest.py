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

from collections.abc import Iterator, Sequence
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
class _Tree:
    """One tree of a model file. For a leaf, ``left`` is -1 and ``condition`` its value."""

    left: list[int]
    right: list[int]
    feature: Array
    condition: Array
    default_left: Array

    @classmethod
    def of(cls, document: Any) -> _Tree:
        return cls(
            np.asarray(document["left_children"], np.int64).tolist(),
            np.asarray(document["right_children"], np.int64).tolist(),
            np.asarray(document["split_indices"], np.int64),
            np.asarray(document["split_conditions"], np.float32),
            np.asarray(document["default_left"], np.bool_),
        )

    def levels(self) -> int:
        """Splits on the longest way to a leaf."""
        level, deepest = [0], 0
        while level := [child for node in level if self.left[node] >= 0 for child in (self.left[node], self.right[node])]:
            deepest += 1
        return deepest


def read_forest(facts: ModelFacts, n_rounds: int) -> Forest:
    """The first ``n_rounds`` rounds of a model that `model_file` has let pass.

    Raises:
        NotCompilable: the model splits on categories, a cut or leaf is not finite, or a feature has more than `MAX_CUTS` cuts.
    """
    if facts.categories:
        raise NotCompilable
    per_round = facts.n_trees // facts.n_rounds
    trees = [_Tree.of(tree) for tree in facts.trees[: n_rounds * per_round]]
    if not all(np.isfinite(tree.condition).all() for tree in trees):
        raise NotCompilable
    bins = _Bins(trees)
    return _Layout().of(trees, bins)


class _Bins:
    """The cuts of each feature, the columns that nodes need, and what each node asks: offset of its column, cut in it."""

    def __init__(self, trees: Sequence[_Tree]) -> None:
        inner = np.concatenate([np.asarray(tree.left) >= 0 for tree in trees])
        feature = np.concatenate([tree.feature for tree in trees])
        condition = np.concatenate([tree.condition for tree in trees])
        right = ~np.concatenate([tree.default_left for tree in trees])
        place = np.zeros(len(inner), np.int64)
        self._cuts: dict[int, Array] = {}
        for used in np.unique(feature[inner]).tolist():
            nodes = np.flatnonzero(inner & (feature == used))
            self._cuts[used], place[nodes] = np.unique(condition[nodes], return_inverse=True)
        if any(len(cuts) > MAX_CUTS for cuts in self._cuts.values()):
            raise NotCompilable
        wanted = np.stack([feature, place // SPAN, right], axis=1)
        self._columns, column = np.unique(wanted[inner], axis=0, return_inverse=True)
        offset, cut = np.zeros(len(inner), np.int64), np.full(len(inner), NEVER)
        offset[inner], cut[inner] = column.reshape(-1) * ROWS, place[inner] % SPAN
        ends = np.cumsum([len(tree.left) for tree in trees])[:-1]
        self.questions = [list(zip(*of_tree, strict=True)) for of_tree in _by_tree(offset, cut, ends)]

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


def _by_tree(offset: Array, cut: Array, ends: Array) -> Iterator[tuple[list[int], list[int]]]:
    for offsets, cuts in zip(np.split(offset, ends), np.split(cut, ends), strict=True):
        yield offsets.tolist(), cuts.tolist()


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


class _Layout:
    """Trees become arrays, one after the other."""

    def __init__(self) -> None:
        self._nodes: list[tuple[int, int]] = []  # offset of the column, cut
        self._exit_value: list[float] = []
        self._exit_node: list[int] = []
        self._below: list[tuple[int, int, int, float]] = []  # offset of the column, cut, next, value

    def of(self, trees: Sequence[_Tree], bins: _Bins) -> Forest:
        depth, n_below, first_node, first_exit = [], [], [], []
        for tree, questions in zip(trees, bins.questions, strict=True):
            levels = tree.levels()
            depth.append(min(max(levels, 1), TOP_DEPTH))
            n_below.append(max(0, levels - TOP_DEPTH))
            first_node.append(len(self._nodes))
            first_exit.append(len(self._exit_value))
            self._top(tree, questions, depth[-1], linked=levels > TOP_DEPTH)
        column, cut = zip(*self._nodes, strict=True)
        below_column, below_cut, following, value = zip(*self._below, strict=True) if self._below else ((), (), (), ())
        return Forest(
            **bins.arrays(),
            depth=np.array(depth, np.int32),
            n_below=np.array(n_below, np.int32),
            first_node=np.array(first_node, np.int64),
            first_exit=np.array(first_exit, np.int64),
            node_column=np.array(column, np.uint32),
            node_cut=np.array(cut, np.uint8),
            exit_value=np.array(self._exit_value, np.float32),
            exit_node=np.array(self._exit_node, np.uint32),
            below_column=np.array(below_column, np.uint32),
            below_cut=np.array(below_cut, np.uint8),
            below_next=np.array(following, np.uint32),
            below_value=np.array(value, np.float32),
        )

    def _top(self, tree: _Tree, questions: Sequence[tuple[int, int]], depth: int, *, linked: bool) -> None:
        """The complete top in level order, then what each way out of it leads to."""
        level = [0]
        for _ in range(depth):
            self._nodes += [questions[node] for node in level]
            level = [
                child
                for node in level
                for child in ((node, node) if tree.left[node] < 0 else (tree.left[node], tree.right[node]))
            ]
        self._exit_value += [0.0 if linked else float(tree.condition[node]) for node in level]
        self._exit_node += [self._link(tree, questions, node) if linked else 0 for node in level]

    def _link(self, tree: _Tree, questions: Sequence[tuple[int, int]], root: int) -> int:
        """Append the nodes from ``root`` down, children side by side; the place of ``root`` among all nodes below tops."""
        first = len(self._below)
        self._below.append((0, NEVER, first, 0.0))
        waiting = [(root, first)]
        while waiting:
            node, place = waiting.pop()
            if tree.left[node] < 0:
                self._below[place] = (0, NEVER, place, float(tree.condition[node]))
                continue
            following = len(self._below)
            self._below += [(0, NEVER, following, 0.0)] * 2
            self._below[place] = (*questions[node], following, 0.0)
            waiting += [(tree.left[node], following), (tree.right[node], following + 1)]
        return first
