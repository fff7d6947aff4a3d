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
    digest = hashlib.sha256(f"{base_score} {n_features} {len(trees)}".encode())
    for tree in trees:
        n_nodes = int(tree["tree_param"]["num_nodes"])
        nodes = {name: _array(tree, name, kind) for name, kind in _OF_NODES.items()}
        unread = {name: _array(tree, name, kind) for name, kind in _UNREAD.items()}
        lengths = {len(values) for values in (*nodes.values(), *unread.values())}
        if lengths != {n_nodes} or int(tree["tree_param"]["num_feature"]) != n_features:
            raise NotTrees("arrays of a tree differ in length")
        if int(tree["tree_param"].get("size_leaf_vector") or 1) > 1:
            raise NotTrees("leaves hold several values")
        _require_tree(nodes, unread["parents"], n_features)
        categories = {name: _array(tree, name, np.int64) if name in tree else _NONE for name in _OF_CATEGORIES}
        _require_categories(nodes, categories)
        for name, values in sorted((nodes | categories).items()):
            digest.update(f"{name} {len(values)} ".encode() + values.tobytes())
    return digest.hexdigest()


def _array(tree: Any, name: str, kind: npt.DTypeLike) -> npt.NDArray[Any]:
    values = np.asarray(tree[name]) if len(tree[name]) else _NONE
    wanted = np.dtype(kind)
    if values.ndim != 1 or values.dtype.kind not in ("fiu" if wanted.kind == "f" else "iub"):
        raise NotTrees("an array of a tree holds no numbers, or fractions where none can be")
    if wanted == np.uint8 and len(values) and not 0 <= values.min() <= values.max() <= 1:
        raise NotTrees("a yes or no of a tree is neither")
    with np.errstate(over="ignore"):  # beyond float32: infinite, as XGBoost reads it
        return values.astype(wanted)


def _require_tree(nodes: dict[str, npt.NDArray[Any]], parents: npt.NDArray[np.int64], n_features: int) -> None:
    left, right, feature = nodes["left_children"], nodes["right_children"], nodes["split_indices"]
    if any(((links < -1) | (links >= len(left))).any() for links in (left, right, parents[1:])):  # pruned nodes are read too
        raise NotTrees("a node's child or parent is no node")
    if len(parents) and parents[0] not in _NO_PARENT:
        raise NotTrees("the root has a parent")
    reached = np.zeros(len(left), np.bool_)
    level = np.zeros(1, np.int64)
    while len(level):
        if level.max() >= len(left) or reached[level].any() or len(np.unique(level)) != len(level):
            raise NotTrees("there is no root, or a node has two parents")
        reached[level] = True
        if not ((left[level] == -1) == (right[level] == -1)).all():
            raise NotTrees("a node has one child")
        inner = level[left[level] != -1]
        if (feature[inner] < 0).any() or (feature[inner] >= n_features).any():
            raise NotTrees("a split asks for a feature that is none")
        level = np.concatenate([left[inner], right[inner]])
        if (parents[level] != np.concatenate([inner, inner])).any():
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
