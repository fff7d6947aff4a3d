"""What each feature gets of each leaf, for every way a row can have answered on the path there: TreeSHAP, done before any row.

XGBoost finds a row's contributions by walking every leaf of every tree (Lundberg et al., 2018, algorithm 2). What a leaf gives
the features on its path depends on the row only by which of the path's splits send it towards the leaf: d bits at depth d. So
a tree of depth 6 has 64 leaves × 64 patterns, and all of them are found here, level by level for all paths and patterns
together (`unwinding`). What is left to do for a row is to look up and to add (`attribution_kernel`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from batchscore.models.attribution_nodes import Nodes
from batchscore.models.forest import NotCompilable
from batchscore.models.model_file import ModelFacts
from batchscore.models.unwinding import fill_entries

MAX_BYTES: Final = 128 << 20  # of a model's entries, in every process that explains with it

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Attribution:
    """Arrays of one model, all C-contiguous; up to ``slot_feature`` their names are the kernel's parameters, in this order.

    Of N nodes, as `Nodes` has them: ``child`` int32, ``feature`` int32, ``cut`` float32, ``missing_right`` uint8, and
    ``first_entry`` int64. ``slot`` int32: which of its tree's sums a split's feature has. ``n_codes`` int32, 0 where a node does
    not split on categories, and ``first_code`` int64: its part of ``codes`` uint8, 1 for a category that goes right.

    ``entries`` float32 (E × ``lanes``,): what a leaf gives, under one pattern, to the features of the splits above it, by their
    levels; 0 for a split whose feature stands above it already.

    Of T trees, in order of summation: ``root`` int64 (T + 1,); ``first_slot`` int64 (T + 1,) into ``slot_feature`` int32: the
    feature that a sum is of. One more slot, after a tree's last, is of none: splits whose feature stands above them have it.

    ``n_features``: of a row. ``bias``: what all rows have, before the base margin.
    """

    child: Array
    feature: Array
    cut: Array
    missing_right: Array
    first_entry: Array
    slot: Array
    n_codes: Array
    first_code: Array
    codes: Array
    entries: Array
    root: Array
    first_slot: Array
    slot_feature: Array
    lanes: int
    n_features: int
    bias: np.float32


def read_nodes(facts: ModelFacts, n_rounds: int, *, max_bytes: int = MAX_BYTES) -> Nodes:
    """Of the first ``n_rounds`` rounds of a model that `model_file` has let pass. Takes a hundredth of `read_attribution`'s time.

    Raises:
        NotCompilable: the entries would be larger than ``max_bytes``, or a tree has more than `attribution_nodes.WIDE` levels.
    """
    return Nodes.of(_trees(facts, n_rounds), max_bytes)


def read_attribution(facts: ModelFacts, n_rounds: int, *, max_bytes: int = MAX_BYTES) -> Attribution:
    """Of those rounds.

    Raises:
        NotCompilable: as `read_nodes`; or a node had no rows in training, so that XGBoost would divide by nothing; or a number
            on the way is not finite.
    """
    trees, nodes = _trees(facts, n_rounds), read_nodes(facts, n_rounds, max_bytes=max_bytes)
    if not (np.isfinite(nodes.cover) & (nodes.cover > 0)).all():
        raise NotCompilable
    codes = _codes(trees, nodes, max_bytes)
    entries, repeated = _entries(nodes)
    bias = _bias(nodes)
    if not (np.isfinite(entries).all() and np.isfinite(bias)):
        raise NotCompilable
    return Attribution(
        child=nodes.child.astype(np.int32),
        feature=nodes.feature.astype(np.int32),
        cut=nodes.value,
        missing_right=nodes.missing_right,
        first_entry=nodes.first_entry,
        **codes,
        entries=entries.reshape(-1),
        root=nodes.root,
        **_slots(nodes, repeated),
        lanes=nodes.lanes,
        n_features=len(facts.names),
        bias=bias,
    )


def _trees(facts: ModelFacts, n_rounds: int) -> Sequence[Any]:
    return facts.trees[: n_rounds * (facts.n_trees // facts.n_rounds)]


def _entries(nodes: Nodes) -> tuple[Array, Array]:
    """All entries, (E, lanes); and which splits ask for a feature that stands above them, bool (N,)."""
    entries, repeated = np.zeros((nodes.n_entries, nodes.lanes), np.float32), np.zeros(len(nodes.child), np.bool_)
    fill_entries(nodes, entries, repeated)
    return entries, repeated


def _bias(nodes: Nodes) -> np.float32:
    """The mean value of each tree over the rows of its training, added up in their order (``FillNodeMeanValues``)."""
    mean = nodes.value.copy()
    with np.errstate(all="ignore"):  # as in `unwinding`
        for level in reversed(range(int(nodes.level.max()))):
            split = np.flatnonzero((nodes.level == level) & (nodes.child >= 0))
            left, right = nodes.child[split], nodes.child[split] + 1
            mean[split] = (mean[left] * nodes.cover[left] + mean[right] * nodes.cover[right]) / nodes.cover[split]
        total: np.float32 = np.add.accumulate(np.append(np.float32(0), mean[nodes.root[:-1]]), dtype=np.float32)[-1]
    return total


def _slots(nodes: Nodes, repeated: Array) -> dict[str, Array]:
    """A tree's distinct features, in order, are its slots."""
    split = np.flatnonzero(nodes.child >= 0)
    width = int(nodes.feature.max()) + 1
    pairs, place = np.unique(nodes.tree[split] * width + nodes.feature[split], return_inverse=True)
    first = np.searchsorted(pairs, np.arange(len(nodes.root)) * width)
    slot = np.zeros(len(nodes.child), np.int64)
    slot[split] = place - first[nodes.tree[split]]
    slot = np.where(repeated, np.diff(first)[nodes.tree], slot)
    return {"slot": slot.astype(np.int32), "first_slot": first, "slot_feature": (pairs % width).astype(np.int32)}


def _codes(trees: Sequence[Any], nodes: Nodes, max_bytes: int) -> dict[str, Array]:
    """The categories of each split on some, a byte each up to the largest listed."""
    own = np.full(sum(len(tree["left_children"]) for tree in trees), -1)
    own[nodes.place] = np.arange(len(nodes.place))
    n_codes, first_code = np.zeros(len(nodes.child), np.int32), np.zeros(len(nodes.child), np.int64)
    parts, n_bytes, n_before = [np.zeros(1, np.uint8)], 1, 0
    for tree in trees:
        of_tree = own[n_before:][: len(tree["left_children"])]
        n_before += len(of_tree)
        listed, *stretches = (tree.get(f"categories{part}", ()) for part in ("", "_nodes", "_segments", "_sizes"))
        for node, first, n in zip(*(np.asarray(held, np.int64).tolist() for held in stretches), strict=True):
            if of_tree[node] < 0:  # no way leads there
                continue
            held = np.asarray(listed[first : first + n], np.int64)
            goes_right = np.zeros(int(held.max()) + 1, np.uint8)
            goes_right[held] = 1
            n_codes[of_tree[node]], first_code[of_tree[node]] = len(goes_right), n_bytes
            n_bytes += len(goes_right)
            if n_bytes > max_bytes:
                raise NotCompilable
            parts.append(goes_right)
    return {"n_codes": n_codes, "first_code": first_code, "codes": np.concatenate(parts)}
