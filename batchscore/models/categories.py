"""The categories that a model file knows: which features are categorical, and what its codes mean.

A model trained on a data frame keeps the values of each categorical column, in the order of their codes (since XGBoost 3.1).
One trained on codes keeps none, and whoever packs it says what they are. Scoring goes by codes alone, which `contract` makes:
XGBoost's own recoding is never asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from batchscore.models.trees import MAX_CATEGORIES, NotTrees


def categories_of(learner: Any, model: Any, names: Sequence[str]) -> dict[str, tuple[str, ...] | tuple[int, ...]]:
    """Of each categorical feature of a model file, its values in the order of codes; empty where the file has none, or not whole.

    Raises:
        NotTrees: trees split on categories of a feature that has none, or categories are not distinct text or integers.
    """
    types = [str(kind) for kind in learner.get("feature_types", ())]
    categorical = {place for place, kind in enumerate(types) if kind == "c"}
    used = {feature for tree in model["trees"] for feature in _split_on_categories(tree)}
    if not used <= categorical:
        raise NotTrees("a split is on categories of a feature that is a number")
    kept = model.get("cats", {}).get("enc", ())
    return {names[place]: _values(kept[place]) if len(kept) else () for place in sorted(categorical)}


def _split_on_categories(tree: Any) -> list[int]:
    splits: list[int] = np.asarray(tree["split_indices"])[np.asarray(tree["split_type"]) == 1].tolist()
    return splits


def _values(encoded: Any) -> tuple[str, ...] | tuple[int, ...]:
    values = np.asarray(encoded["values"])
    if "offsets" not in encoded:  # integers, of a type that is told and does not matter here
        numbers = tuple(int(value) for value in values.tolist())
        if len(set(numbers)) != len(numbers) or values.dtype.kind not in "iu" or len(numbers) > MAX_CATEGORIES:
            raise NotTrees("categories are neither text nor integers, or one stands twice")
        return numbers
    if len(values) and values.min() < 0:  # beyond ASCII, XGBoost 3.2 keeps as many bytes as there are letters: the rest is lost
        return ()
    payload = values.astype(np.int8).tobytes()
    ends = np.asarray(encoded["offsets"]).tolist()
    if ends and (ends[0] != 0 or ends[-1] != len(payload) or any(end < start for start, end in pairwise(ends))):
        raise NotTrees("the texts of categories lie beyond their bytes")
    texts = tuple(payload[start:end].decode("utf-8") for start, end in pairwise(ends))
    if len(set(texts)) != len(texts) or len(texts) > MAX_CATEGORIES:
        raise NotTrees("a category stands twice")
    return texts
