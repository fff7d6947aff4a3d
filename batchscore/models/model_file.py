"""What a model file says of itself, read without XGBoost; and every model that is refused, by name, with how to mend it.

XGBoost loads nearly anything: a file of a newer version scores wrong without a word, a pickle runs code. So a file is
first sniffed, then parsed by `model_document`, then held against what this engine can score exactly: one margin per row
from `gbtree` under `binary:logistic`, with feature names and a settled iteration range. Never unpickles,
never imports xgboost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import numpy as np

from batchscore.errors import Refused
from batchscore.models.categories import categories_of
from batchscore.models.model_document import NotReadable, read_json, read_ubjson
from batchscore.models.trees import NotTrees, digest_of_trees
from batchscore.settings import library_versions

OBJECTIVE: Final = "binary:logistic"
_REPACK: Final = "load it where it was trained, booster.save_model('model.ubj'), and pack that file"
_HEAD: Final = 512

_OTHER_LIBRARY: Final = "batchscore scores XGBoost models only"

# What the first bytes give away: pattern, what it is, what to do. The first that matches counts; `{` alone is read further.
_FOREIGN: Final[tuple[tuple[str, str, str], ...]] = (
    (r"\Z", "an empty file", "pack the file that booster.save_model('model.ubj') wrote"),
    (r"\x80[\x00-\x05]|\(dp|\(lp|\(i[a-z]|c[a-z_.]+\n", "a Python pickle (joblib writes them too), left unopened", _REPACK),
    (
        r"\x1f\x8b|BZh|\xfd7zXZ|x[\x01\x5e\x9c\xda]|PK\x03\x04|\x04\x22\x4d\x18|\x28\xb5\x2f\xfd",
        "a compressed file (joblib and archives look so), left unopened",
        _REPACK,
    ),
    (r"tree\r?\n(?:[^\n]*\n){0,3}?version=", "a LightGBM text model", _OTHER_LIBRARY),
    (r"CBM1", "a CatBoost model", _OTHER_LIBRARY),
    (
        r"\s*(?:booster\[\d+\]|\d+:(?:\[|leaf=)|digraph|\[\s*\{\s*\"nodeid\")",
        "text written by dump_model, which is for reading and has lost digits",
        _REPACK,
    ),
    (
        r"binf|bs64|CONFIG-offset|[^{].{0,500}?(?:gbtree|gblinear|dart)",
        "XGBoost's old binary format, which newer versions do not read",
        "load it with XGBoost 1.7, booster.save_model('model.ubj'), and pack that file",
    ),
)
_SHAPELESS: Final = (
    KeyError,
    IndexError,
    TypeError,
    ValueError,
    AttributeError,
    OverflowError,
)  # what walking a stranger's JSON raises
_SEVERAL: Final = "train one binary model per class, each its own bundle"
_OBJECTIVES: Final[dict[str, tuple[str, str]]] = {
    "binary:logitraw": ("gives raw margins, not probabilities", f"train with {OBJECTIVE}: the trees and margins are the same"),
    "binary:hinge": ("gives 0 or 1, which cannot be ranked", f"train with {OBJECTIVE}"),
    "multi:softprob": ("is multiclass", _SEVERAL),
    "multi:softmax": ("is multiclass", _SEVERAL),
    "reg:squarederror": ("is a regression (a custom objective leaves this name too)", f"train with {OBJECTIVE}, without obj="),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFacts:
    """What a model file says of itself. ``base_score`` is the text XGBoost keeps; a round may grow several trees.

    ``categories``: of each categorical feature, its values in the order of codes; empty where the model was trained on codes.
    ``trees`` are as the file has them, plain values; only `forest` looks into them.
    """

    written_by: tuple[int, int, int]
    objective: str
    names: tuple[str, ...]
    base_score: str
    n_trees: int
    n_rounds: int
    best_iteration: int | None
    suffix: str  # ubj or json
    forest_digest: str  # see `trees`
    categories: Mapping[str, tuple[str, ...] | tuple[int, ...]]
    trees: Sequence[Any] = field(compare=False, repr=False)

    @property
    def version_text(self) -> str:
        """The XGBoost that wrote the file, as ``3.2.0``."""
        return ".".join(map(str, self.written_by))


def read_model_facts(payload: bytes, *, where: str) -> ModelFacts:
    """Parse a model file's bytes and refuse, by name, what cannot be scored exactly. ``where`` names the file in messages.

    Raises:
        Refused: ``model_format``, ``model_version``, ``model_objective`` or ``feature_contract``.
    """
    suffix, document = _parse(payload, where)
    try:
        written_by = _version(document["version"])
    except _SHAPELESS:
        _refuse_shape(document, where)
    _refuse_newer(written_by, where)
    try:
        learner = document["learner"]
        booster = learner["gradient_booster"]
        _refuse_booster(str(booster["name"]), where)
        _refuse_objective(str(learner["objective"]["name"]), learner["learner_model_param"], where)
        return _facts(written_by, suffix, learner, booster["model"], where)
    except NotTrees as error:
        raise Refused("model_format", f"the trees are damaged: {error}", where=where, remedy=_REPACK) from None
    except _SHAPELESS:
        _refuse_shape(document, where)


def settled_range(facts: ModelFacts, asked: tuple[int, int] | None, *, where: str) -> tuple[int, int]:
    """The rounds to score with: ``asked``, or all of them when early stopping leaves no doubt.

    Raises:
        Refused: ``bundle_invalid``: the range is not inside the model, or early stopping kept rounds after the best one.
    """
    if asked is None:
        if facts.best_iteration is not None and facts.best_iteration + 1 != facts.n_rounds:
            best = facts.best_iteration + 1
            what = f"early stopping found round {best} of {facts.n_rounds} the best, and no iteration range says which to use"
            raise Refused(
                "bundle_invalid",
                what,
                where=where,
                remedy=f"pack with iteration_range=(0, {best}) for the best, or (0, {facts.n_rounds}) for all",
            )
        return (0, facts.n_rounds)
    if asked[0] != 0 or not 0 < asked[1] <= facts.n_rounds:
        raise Refused(
            "bundle_invalid",
            f"the iteration range {asked} is not (0, n) with n from 1 to {facts.n_rounds}",
            where=where,
            remedy=f"pack with iteration_range=(0, {facts.n_rounds}) or less",
        )
    return asked


def _parse(payload: bytes, where: str) -> tuple[str, Any]:
    head = payload[:_HEAD]
    for pattern, what, remedy in _FOREIGN:
        if re.match(pattern.encode("ascii"), head, re.DOTALL):
            raise Refused("model_format", f"this is {what}", where=where, remedy=remedy)
    if not head.lstrip().startswith(b"{"):
        raise Refused("model_format", "this is neither XGBoost JSON nor UBJSON", where=where, remedy=_REPACK)
    suffix = "json" if re.match(rb"\s*\{\s*\"", head) else "ubj"
    try:
        return suffix, read_json(payload) if suffix == "json" else read_ubjson(payload)
    except NotReadable as error:
        raise Refused("model_format", f"this looks like {suffix} but is damaged: {error}", where=where, remedy=_REPACK) from None


def _version(parts: Sequence[Any]) -> tuple[int, int, int]:
    major, minor, patch = (int(part) for part in parts)
    return major, minor, patch


def _refuse_newer(written_by: tuple[int, int, int], where: str) -> None:
    installed = dict(library_versions())["xgboost"]
    runtime = _version([*re.findall(r"\d+", installed), "0", "0", "0"][:3])
    if written_by > runtime:
        text = ".".join(map(str, written_by))
        raise Refused(
            "model_version",
            f"the model was written by XGBoost {text}, here is {installed}: it could load and score wrong",
            where=where,
            remedy=f"install xgboost>={text} everywhere, or save the model with {installed}",
        )


def _refuse_booster(name: str, where: str) -> None:
    if name != "gbtree":
        raise Refused(
            "model_objective",
            f"the booster is {name!r}; only gbtree is scored exactly",
            where=where,
            remedy="train with booster='gbtree'",
        )


def _refuse_objective(objective: str, parameters: Mapping[str, str], where: str) -> None:
    if objective != OBJECTIVE:
        family = "is for ranking" if objective.startswith("rank:") else "does not give a probability that can be thresholded"
        why, remedy = _OBJECTIVES.get(objective, (family, f"train with {OBJECTIVE}"))
        raise Refused("model_objective", f"the objective {objective!r} {why}", where=where, remedy=remedy)
    if int(parameters.get("num_class", "0")) > 1 or int(parameters.get("num_target", "1")) > 1:
        raise Refused("model_objective", "the model has several outputs", where=where, remedy=_SEVERAL)


def _facts(written_by: tuple[int, int, int], suffix: str, learner: Any, model: Any, where: str) -> ModelFacts:
    trees, parameters = model["trees"], model["gbtree_model_param"]
    n_trees, per_round = len(trees), int(parameters.get("num_parallel_tree") or "1") or 1
    if n_trees == 0 or n_trees != int(parameters["num_trees"]) or per_round < 1 or n_trees % per_round:
        raise Refused("model_format", "the model's number of trees is 0 or contradicts itself", where=where, remedy=_REPACK)
    names = _names(learner, where)
    _require_rounds(model, n_trees, per_round)
    base_score = _base_score(learner["learner_model_param"]["base_score"])
    best = learner.get("attributes", {}).get("best_iteration")
    return ModelFacts(
        written_by=written_by,
        objective=OBJECTIVE,
        names=names,
        base_score=base_score,
        n_trees=n_trees,
        n_rounds=n_trees // per_round,
        best_iteration=None if best is None else int(best),
        suffix=suffix,
        categories=categories_of(learner, model, names),
        forest_digest=digest_of_trees(trees, base_score=base_score, n_features=len(names)),
        trees=trees,
    )


def _require_rounds(model: Any, n_trees: int, per_round: int) -> None:
    """Refuse a list of which tree is of which output or round that is not the plain one: XGBoost would follow it."""
    firsts = np.asarray(model.get("iteration_indptr", range(0, n_trees + 1, per_round)))
    if np.any(np.asarray(model["tree_info"]) != np.zeros(n_trees)) or firsts.tolist() != [*range(0, n_trees + 1, per_round)]:
        raise NotTrees("they are not of one output, in rounds of one size")


def _names(learner: Any, where: str) -> tuple[str, ...]:
    names = tuple(str(name) for name in learner.get("feature_names", ()))
    if not names:
        raise Refused(
            "feature_contract",
            "the model holds no feature names, so columns could only be matched by place",
            where=where,
            remedy="train on a DMatrix with feature_names=…, or set booster.feature_names before save_model",
        )
    distinct = len(set(names)) == len(names) == int(learner["learner_model_param"]["num_feature"])
    if not distinct or not all(name.isprintable() for name in names):
        raise Refused(
            "feature_contract",
            "the model's feature names are not one for each feature, each once, in printable text",
            where=where,
            remedy="train with distinct, plain feature names",
        )
    return names


def _base_score(text: str) -> str:
    value = json.loads(text)  # "5E-1" up to XGBoost 3.0, "[5E-1]" from 3.1
    values = value if isinstance(value, list) else [value]
    if len(values) != 1 or not 0 < float(values[0]) < 1:
        msg = "not one probability"
        raise ValueError(msg)
    return text


def _refuse_shape(document: Any, where: str) -> NoReturn:
    keys = set(document) if isinstance(document, dict) else set()
    if {"Config", "Model"} <= keys:
        what, remedy = "this is a memory snapshot of a booster, tied to one version", _REPACK
    elif "learner" in keys:
        what, remedy = "this has the outline of an XGBoost model but lacks its parts (save_config writes such files)", _REPACK
    elif {"tree_info", "feature_names"} <= keys:
        what, remedy = "this is a LightGBM dump", "batchscore scores XGBoost models only"
    else:
        what, remedy = "this is JSON or UBJSON, but no XGBoost model", _REPACK
    raise Refused("model_format", what, where=where, remedy=remedy) from None
