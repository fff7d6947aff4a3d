"""The trees of a model file: that they are trees, and their digest.

XGBoost believes whatever a file says of its trees: a child that does not exist is read from beyond the array, a child that is
its own ancestor is walked for ever, and nothing else notices a leaf that changed. So every array must have its length, every
node that can be reached is reached once, and the digest of all that decides a margin or a contribution is in the manifest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

# Array of a tree → how its values are held. `sum_hessian` weighs the ways of TreeSHAP.
_OF_NODES: Final = {
    "left_children": np.int64,
    "right_children": np.int64,
    "split_indices": np.int64,
    "split_conditions": np.float32,
    "default_left": np.uint8,
    "split_type": np.uint8,
    "sum_hessian": np.float32,
}
# Of nodes too; XGBoost loads them, and no score depends on them.
_UNREAD: Final = {"parents": np.int64, "base_weights": np.float32, "loss_changes": np.float32}
_NO_PARENT: Final = (2**31 - 1, -1)  # of a root: as XGBoost writes it, and as versions before 1.4 did
_OF_CATEGORIES: Final = ("categories", "categories_nodes", "categories_segments", "categories_sizes")
MAX_CATEGORIES: Final = 1 << 20  # of one feature: XGBoost keeps a bit for each in every split
_NONE: Final = np.empty(0, np.int64)


class NotTrees(ValueError):
    """The message says what is wrong, and quotes nothing of the file."""


def digest_of_trees(trees: Sequence[Any], *, base_score: str, n_features: int) -> str:
    """64 hex over all that decides the margins and contributions of trees; the same however the file was written.

    Raises:
        NotTrees: a tree is none, in one of the ways above (other exceptions: it lacks a part).
    """
    sizes = np.array([int(tree["tree_param"]["num_nodes"]) for tree in trees])
    if any(int(tree["tree_param"]["num_feature"]) != n_features for tree in trees):
        raise NotTrees("a tree is of other features")
    if any(int(tree["tree_param"].get("size_leaf_vector") or 1) > 1 for tree in trees):
        raise NotTrees("leaves hold several values")
    nodes = {name: _joined(trees, name, kind, sizes) for name, kind in _OF_NODES.items()}
    unread = {name: _joined(trees, name, kind, sizes) for name, kind in _UNREAD.items()}
    _require_trees(nodes, unread["parents"], sizes, n_features)
    digest = hashlib.sha256(f"{base_score} {n_features} {len(trees)}".encode())
    for tree, end, n in zip(trees, np.cumsum(sizes).tolist(), sizes.tolist(), strict=True):
        own = {name: values[end - n : end] for name, values in nodes.items()}
        categories = {
            name: _array(tree[name], np.int64) if name in tree and len(tree[name]) else _NONE for name in _OF_CATEGORIES
        }
        _require_categories(own, categories)
        for name, values in sorted((own | categories).items()):
            digest.update(f"{name} {len(values)} ".encode() + values.tobytes())
    return digest.hexdigest()


def _joined(trees: Sequence[Any], name: str, kind: npt.DTypeLike, sizes: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """An array of all trees' nodes, one tree after the other; each has its tree's length."""
    arrays = [np.asarray(tree[name]) for tree in trees]
    if [array.shape for array in arrays] != [(n,) for n in sizes.tolist()]:
        raise NotTrees("arrays of a tree differ in length")
    same = len({array.dtype for array in arrays}) == 1
    return _array(np.concatenate(arrays), kind) if same else np.concatenate([_array(array, kind) for array in arrays])


def _array(held: Any, kind: npt.DTypeLike) -> npt.NDArray[Any]:
    values, wanted = np.asarray(held), np.dtype(kind)
    if values.ndim != 1 or values.dtype.kind not in ("fiu" if wanted.kind == "f" else "iub"):
        raise NotTrees("an array of a tree holds no numbers, or fractions where none can be")
    if wanted == np.uint8 and len(values) and not 0 <= values.min() <= values.max() <= 1:
        raise NotTrees("a yes or no of a tree is neither")
    with np.errstate(over="ignore"):  # beyond float32: infinite, as XGBoost reads it
        return values.astype(wanted)


def _require_trees(
    nodes: dict[str, npt.NDArray[Any]], parents: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64], n_features: int
) -> None:
    """``sizes``: nodes of each tree. Links are places in the own tree; all trees are gone down at once, level by level."""
    left, right, feature = nodes["left_children"], nodes["right_children"], nodes["split_indices"]
    if (sizes < 1).any():
        raise NotTrees("a tree has no root")
    first = np.cumsum(sizes) - sizes
    own_first, own_size = np.repeat(first, sizes), np.repeat(sizes, sizes)
    is_root = np.zeros(len(left), np.bool_)
    is_root[first] = True
    if not np.isin(parents[is_root], _NO_PARENT).all():
        raise NotTrees("a root has a parent")
    if any(((links < -1) | (links >= own_size)).any() for links in (left, right, np.where(is_root, -1, parents))):
        raise NotTrees("a node's child or parent is no node")  # pruned nodes are read too
    reached = np.zeros(len(left), np.bool_)
    level = first
    while len(level):
        if reached[level].any() or len(np.unique(level)) != len(level):
            raise NotTrees("a node has two parents")
        reached[level] = True
        if not ((left[level] == -1) == (right[level] == -1)).all():
            raise NotTrees("a node has one child")
        inner = level[left[level] != -1]
        if (feature[inner] < 0).any() or (feature[inner] >= n_features).any():
            raise NotTrees("a split asks for a feature that is none")
        level = np.concatenate([left[inner], right[inner]]) + np.tile(own_first[inner], 2)
        if (parents[level] + own_first[level] != np.tile(inner, 2)).any():
            raise NotTrees("a node does not know its parent")


def _require_categories(nodes: dict[str, npt.NDArray[Any]], categories: dict[str, npt.NDArray[Any]]) -> None:
    """Every node that splits on categories, and no other, has its stretch of the list of them."""
    splits = np.flatnonzero((nodes["split_type"] == 1) & (nodes["left_children"] != -1))
    listed, first, n = (categories[f"categories_{name}"] for name in ("nodes", "segments", "sizes"))
    codes = categories["categories"]
    if not np.array_equal(np.sort(listed), splits) or not len(listed) == len(first) == len(n):
        raise NotTrees("the nodes that split on categories are not those that have some")
    if len(listed) and ((first < 0) | (n < 1) | (first > len(codes) - n)).any():
        raise NotTrees("a split's categories lie beyond their list")
    if len(codes) and not 0 <= codes.min() <= codes.max() < MAX_CATEGORIES:
        raise NotTrees("a category's code is out of range")
