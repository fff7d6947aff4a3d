"""TreeSHAP's arithmetic, over arrays: what a leaf gives to each feature above it, for every pattern of answers at once.

Every number here goes through the operations of XGBoost's ``treeshap.cc`` in its order, each rounded to float32 (NumPy fuses
none): ``ExtendPath``, ``UnwindPath`` and ``UnwoundPathSum``, whose names for things are kept. A path's elements are its distinct
features, after a first that is of none. ``zero`` is the share of training rows that pass an element's splits, ``one`` whether the
row does, and ``weight`` i belongs to the sets of features of which i are known.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from batchscore.models.attribution_nodes import Nodes

Array = npt.NDArray[Any]
_F = np.float32
_AT_ONCE = 1 << 14  # patterns of paths: what is worked on stays in the second-level cache, however large a tree


@dataclass(slots=True, eq=False)
class _Paths:
    """n paths to nodes of one level l, each under P = 2^l patterns, that have equally many elements, d (not counting the first).

    ``node`` (n,). ``feature``, ``lane`` int (n, d): of an element, and the level at which it stood first. ``zero`` float32
    (d, n), ``one`` float32 (d, n, P), ``weight`` d + 1 times float32 (n, P).
    """

    node: Array
    feature: Array
    lane: Array
    zero: Array
    one: Array
    weight: list[Array]

    def take(self, places: Array) -> _Paths:
        weight = [held[places] for held in self.weight]
        return _Paths(
            self.node[places], self.feature[places], self.lane[places], self.zero[:, places], self.one[:, places], weight
        )


def fill_entries(nodes: Nodes, entries: Array, repeated: Array) -> None:
    """Fill in the ``entries`` of all leaves; mark in ``repeated`` the splits whose feature stands above them."""
    roots = nodes.root[:-1]
    n, none = len(roots), np.zeros((len(roots), 0), np.int64)
    first = _Paths(roots, none, none, np.zeros((0, n), _F), np.zeros((0, n, 1), _F), [np.ones((n, 1), _F)])
    waiting = [(0, [first])]
    with np.errstate(all="ignore"):  # what is not finite is seen when all is done
        while waiting:
            level, groups = waiting.pop()
            n_paths = sum(len(paths.node) for paths in groups)
            if n_paths << level > _AT_ONCE and n_paths > 1:
                waiting += [(level, half) for half in _halves(groups)]
                continue
            below: dict[int, list[_Paths]] = defaultdict(list)
            for paths in groups:
                is_leaf = nodes.child[paths.node] < 0
                if is_leaf.any():
                    _fill(paths.take(np.flatnonzero(is_leaf)), nodes, entries)
                for some, element in _by_repetition(paths.take(np.flatnonzero(~is_leaf)), nodes):
                    if element is not None:
                        repeated[some.node] = True
                    grown = _grown(some, element, level, nodes)
                    below[len(grown.weight)].append(grown)
            if below:
                waiting.append((level + 1, [_together(parts) for parts in below.values()]))


def _halves(groups: list[_Paths]) -> Iterator[list[_Paths]]:
    """The same paths in two lists, neither of which is empty where there are two paths."""
    if len(groups) > 1:
        yield groups[:1]
        yield groups[1:]
    else:
        middle = len(groups[0].node) // 2
        yield [groups[0].take(np.arange(middle))]
        yield [groups[0].take(np.arange(middle, len(groups[0].node)))]


def _by_repetition(paths: _Paths, nodes: Nodes) -> Iterator[tuple[_Paths, Array | None]]:
    """Paths to splits: those with a feature that is new, and those that have it, with the place of that element (n,)."""
    has = paths.feature == nodes.feature[paths.node][:, None]
    repeats = has.any(axis=1)
    if not repeats.all():
        yield paths.take(np.flatnonzero(~repeats)), None
    if repeats.any():
        yield paths.take(np.flatnonzero(repeats)), has[repeats].argmax(axis=1)


def _grown(paths: _Paths, repeated: Array | None, level: int, nodes: Nodes) -> _Paths:
    """The paths to both children of each path's split."""
    split, lane = paths.node, np.full(len(paths.node), level)
    incoming_zero, incoming_one = np.ones(len(split), _F), np.ones(paths.weight[0].shape, _F)
    if repeated is not None:
        each = np.arange(len(split))
        lane = paths.lane[each, repeated]
        incoming_zero, incoming_one = paths.zero[repeated, each], paths.one[repeated, each]
        paths = _unwound(paths, repeated)
    left = nodes.child[split]
    children = []
    for child in (left, left + 1):
        zero = nodes.cover[child] / nodes.cover[split] * incoming_zero
        one = np.concatenate([np.zeros_like(incoming_one), incoming_one], axis=1)  # the pattern's new bit: 0, then 1
        children.append(_extended(paths, child, nodes.feature[split], lane, zero, one))
    return _together(children)


def _extended(paths: _Paths, node: Array, feature: Array, lane: Array, zero: Array, one: Array) -> _Paths:
    """``ExtendPath``; ``one`` (n, 2P): each pattern twice."""
    depth = len(paths.weight)
    weight = [np.concatenate([held, held], axis=1) for held in paths.weight]
    weight.append(np.zeros_like(one))
    for i in reversed(range(depth)):
        weight[i + 1] += one * weight[i] * _F(i + 1) / _F(depth + 1)
        weight[i] = zero[:, None] * weight[i] * _F(depth - i) / _F(depth + 1)
    return _Paths(
        node,
        np.column_stack([paths.feature, feature]),
        np.column_stack([paths.lane, lane]),
        np.concatenate([paths.zero, zero[None]]),
        np.concatenate([np.concatenate([paths.one, paths.one], axis=2), one[None]]),
        weight,
    )


def _unwound(paths: _Paths, place: Array) -> _Paths:
    """``UnwindPath``: without the element at ``place`` (n,)."""
    depth, each = len(paths.weight) - 1, np.arange(len(place))
    zero, one = paths.zero[place, each][:, None], paths.one[place, each]
    known = one != 0
    weight, following = paths.weight[:-1], paths.weight[-1]
    for i in reversed(range(depth)):
        held = weight[i]
        if_known = following * _F(depth + 1) / _F(i + 1)
        weight[i] = np.where(known, if_known, held * _F(depth + 1) / (zero * _F(depth - i)))
        following = held - if_known * zero * _F(depth - i) / _F(depth + 1)
    kept = np.arange(depth - 1)[None] + (np.arange(depth - 1)[None] >= place[:, None])
    rows = each[:, None]
    return _Paths(
        paths.node,
        paths.feature[rows, kept],
        paths.lane[rows, kept],
        paths.zero[kept.T, each],
        paths.one[kept.T, each],
        weight,
    )


def _fill(paths: _Paths, nodes: Nodes, entries: Array) -> None:
    """Write what the leaves at the end of paths give."""
    depth, n_patterns = len(paths.weight) - 1, paths.weight[0].shape[1]
    places = nodes.entries(paths.node, n_patterns)
    value = nodes.value[paths.node][:, None]
    for element in range(depth):
        zero, one = paths.zero[element][:, None], paths.one[element]
        total = _unwound_sum(paths.weight, zero, one)
        entries[places, paths.lane[:, element][:, None]] = total * (one - zero) * value


def _unwound_sum(weight: list[Array], zero: Array, one: Array) -> Array:
    """``UnwoundPathSum`` of the element with that ``zero`` (n, 1) and ``one`` (n, P)."""
    depth = len(weight) - 1
    known = one != 0
    following, if_known = weight[depth], np.zeros_like(one)
    if_not = np.zeros_like(one)
    for i in reversed(range(depth)):
        share = _F(depth - i) / _F(depth + 1)
        term = following * _F(depth + 1) / _F(i + 1)
        if_known += term
        following = weight[i] - term * zero * share
        if_not += weight[i] / zero / share
    found: Array = np.where(known, if_known, if_not)
    return found


def _together(parts: list[_Paths]) -> _Paths:
    if len(parts) == 1:
        return parts[0]
    return _Paths(
        np.concatenate([part.node for part in parts]),
        np.concatenate([part.feature for part in parts]),
        np.concatenate([part.lane for part in parts]),
        np.concatenate([part.zero for part in parts], axis=1),
        np.concatenate([part.one for part in parts], axis=1),
        [np.concatenate(held) for held in zip(*(part.weight for part in parts), strict=True)],
    )
