"""Packs a trained booster into a bundle: checked as strictly as it will be on loading, written whole or not at all.

The only writer of bundles. What would be refused on a worker is refused here first, where the person who trained the model
can mend it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import xgboost as xgb
from pydantic import AwareDatetime, Field, StrictInt

from batchscore.digest import canonical_json
from batchscore.errors import AttemptFailed, Problem, Refused
from batchscore.files import in_words, parquet_bytes, sync_folder
from batchscore.models.bounds import MIN_ROWS, Bounds, expected_of
from batchscore.models.bundle import (
    GOLDEN,
    MANIFEST,
    MAX_MODEL_BYTES,
    ReasonTemplate,
    parse_manifest,
    read_checked,
)
from batchscore.models.calibration import Calibration, Isotonic, Sigmoid
from batchscore.models.container import read_limited, write_zip
from batchscore.models.contract import CategorySet, Frame, conform
from batchscore.models.effects import effects_of
from batchscore.models.golden import MAX_ROWS, differing_rows, golden_table
from batchscore.models.machine import this_machine
from batchscore.models.model_file import ModelFacts, read_model_facts, settled_range
from batchscore.models.probe import require_survivor
from batchscore.models.xgboost_scorer import (
    XGBoostScorer,
    calibrated,
    load_booster,
    predict_by_dmatrix,
    predict_in_place,
    sigmoid,
)
from batchscore.plan import Reference
from batchscore.report.histogram import Counts, histogram
from batchscore.spelling import did_you_mean
from batchscore.values import NAME, Value


class Categories(Value):
    """A categorical feature: its values in the order of the model's codes, and what any other value is."""

    values: tuple[StrictInt, ...] | tuple[str, ...] = ()
    unseen: Literal["missing", "reject"] = "missing"


class About(Value):
    """What the model file cannot say of itself; see `Manifest` for each. ``iteration_range`` None: every round.

    ``categories``: by categorical feature; values may be left out where the model file knows them.
    """

    name: str = Field(pattern=NAME)
    reasons: Mapping[str, ReasonTemplate]
    trained_as_of: AwareDatetime | None = None
    iteration_range: tuple[int, int] | None = None
    categories: Mapping[str, Categories] = Field(default_factory=dict)
    calibration: Calibration | None = None
    limits: Mapping[str, Bounds] = Field(default_factory=dict)
    notes: Mapping[str, str] = Field(default_factory=dict)


def pack_bundle(  # noqa: PLR0913 (one for each part of a bundle)
    model: xgb.Booster | Path,
    folder: Path,
    *,
    features: Sequence[str],
    feature_set_digest: str,
    golden: pa.Table,
    about: About,
    reference: pa.Table | None = None,
) -> Reference:
    """Write the bundle of ``model`` as the new folder (or zip) ``folder``; returns the reference to its manifest.

    Args:
        model: A trained booster, or the file (UBJSON or JSON) one was saved to; the file's bytes are kept as they are.
        folder: Where to; must not exist. Its parents are made. A name that ends in ``.zip`` makes a zip.
        features: The names the feature set makes; each of the model's must be among them, in any order.
        feature_set_digest: Of the feature set the model was trained for.
        golden: Feature rows (1 to 10,000, at best with missing and extreme values), by name.
        about: Name, reasons and notes.
        reference: Feature rows as the model saw them in training: what to expect of each feature is taken from them.

    Raises:
        Refused: the folder exists (nothing is ever overwritten), the model is one of those `model_file` refuses, a reason or
            feature is missing, or XGBoost's two routes to a margin differ on the golden rows (``golden_mismatch``).
        AttemptFailed: ``write_failed``: disk full or an I/O error; nothing is left behind.
    """
    if folder.exists():
        raise Refused(
            "bundle_invalid",
            "there is already something at that place",
            where=str(folder),
            remedy="pack into a new folder: a bundle that a run has used must stay as it is",
        )
    payload, where = _model_bytes(model)  # a booster goes through its saved bytes, so that both are checked alike
    facts = read_model_facts(payload, where=where)
    rounds = settled_range(facts, about.iteration_range, where=where)
    _require_features(facts.names, features, where)
    sets = _category_sets(facts, about.categories, where)
    _refuse_strange_limits(about.limits, facts.names, where)
    rows = _golden_frame(golden, facts.names, sets)
    reference_rows = None if reference is None else conform(reference, facts.names, sets)
    expected = {} if reference_rows is None else _expected(reference_rows, sets)
    if isinstance(model, Path):  # a booster is in this process already
        require_survivor(payload, rows.matrix, rounds[1], where=where)
    golden_bytes = parquet_bytes(_golden_by_two_routes(payload, rows, rounds, about.calibration, where=where))
    model_name = f"model.{facts.suffix}"
    effects = effects_of(facts, rounds[1])
    described = {
        **_described(facts, about, where),
        "features": [
            _feature(name, sets.get(name), expected.get(name), about.limits.get(name)) | {"effect": effects.get(name)}
            for name in facts.names
        ],
        "model": _entry(model_name, payload),
        "golden": _entry(GOLDEN, golden_bytes),
        "n_golden": len(rows),
        "feature_set_digest": feature_set_digest,
        "iteration_range": rounds,
        **(
            {}
            if reference_rows is None
            else {"scores": _scores_of(payload, reference_rows, rounds, about.calibration, where=where)}
        ),
    }
    manifest = parse_manifest(canonical_json(described), where=about.name)
    files = {model_name: payload, GOLDEN: golden_bytes, MANIFEST: canonical_json(manifest.model_dump(mode="json"))}
    return _publish(files, folder.absolute())


def _model_bytes(model: xgb.Booster | Path) -> tuple[bytes, str]:
    if isinstance(model, Path):
        return read_limited(model, MAX_MODEL_BYTES), model.name
    return bytes(model.save_raw("ubj")), "booster"


def _require_features(wanted: tuple[str, ...], made: Sequence[str], where: str) -> None:
    absent = [name for name in wanted if name not in made]
    unknown = tuple(
        Problem(where=name, what="the feature set does not make it", remedy=did_you_mean(name, made)) for name in absent
    )
    if unknown:
        raise Refused(
            "feature_contract",
            "the model wants features that the feature set does not make",
            where=where,
            problems=unknown,
            remedy="pack with the feature set the model was trained for",
        )


def _category_sets(facts: ModelFacts, given: Mapping[str, Categories], where: str) -> dict[str, CategorySet]:
    """Of each categorical feature: the model's own values, or those given."""
    problems = [
        Problem(where=name, what="is no categorical feature of the model", remedy=did_you_mean(name, tuple(facts.categories)))
        for name in given
        if name not in facts.categories
    ]
    sets = {}
    for name, known in facts.categories.items():
        said = given.get(name, Categories())
        if said.values and known and said.values != known:
            problems.append(
                Problem(where=name, what="the model was trained with other categories", remedy="leave the values out")
            )
        elif not (said.values or known):
            what = "the model was trained on codes, and nothing says of what"
            problems.append(Problem(where=name, what=what, remedy="give its values, in the order of the codes"))
        else:
            sets[name] = CategorySet(known=known or said.values, unseen=said.unseen)
    if problems:
        raise Refused(
            "feature_contract",
            "the categories of some features are not clear",
            where=where,
            problems=tuple(problems),
            remedy="declare them: --categories FILE.yaml",
        )
    return sets


def _refuse_strange_limits(limits: Mapping[str, Bounds], names: tuple[str, ...], where: str) -> None:
    strange = [name for name in limits if name not in names]
    if strange:
        raise Refused(
            "feature_contract",
            "limits are declared for what is no feature of the model",
            where=where,
            problems=tuple(Problem(where=name, what="is none", remedy=did_you_mean(name, names)) for name in strange),
            remedy="declare limits for the model's features",
        )


def _expected(reference: Frame, sets: Mapping[str, CategorySet]) -> dict[str, Bounds]:
    if len(reference) < MIN_ROWS:
        raise Refused(
            "bundle_invalid",
            f"reference rows must be at least {MIN_ROWS}: of fewer, a share says little",
            where="reference",
            remedy="give the rows of training, or a sample of them",
        )
    return expected_of(reference, categorical=tuple(sets))


def _feature(name: str, categories: CategorySet | None, expected: Bounds | None, limits: Bounds | None) -> dict[str, Any]:
    said: dict[str, Any] = {"name": name}
    if categories is not None:
        said |= {"dtype": "category", "categories": categories.known, "unseen": categories.unseen}
    bounds = {"expected": expected, "limits": limits}
    return said | {kind: bound.model_dump() for kind, bound in bounds.items() if bound is not None}


def _golden_frame(golden: pa.Table, names: tuple[str, ...], sets: Mapping[str, CategorySet]) -> Frame:
    rows = conform(golden, names, sets)
    if not 0 < len(rows) <= MAX_ROWS or rows.unscorable.any():
        raise Refused(
            "bundle_invalid",
            f"golden rows must be 1 to {MAX_ROWS}, without infinite values or categories to reject",
            where="golden",
            remedy="give a few hundred rows of real or made-up features",
        )
    return rows


def _golden_by_two_routes(
    payload: bytes, rows: Frame, rounds: tuple[int, int], calibration: Sigmoid | Isotonic | None, *, where: str
) -> pa.Table:
    booster = load_booster(payload, nthread=1, where=where)
    margins = predict_in_place(booster, rows.matrix, rounds)
    scores = sigmoid(margins, nthread=1)
    other_margins, other_scores = predict_by_dmatrix(booster, rows, rounds, _categorical(booster))
    n_differ = int((differing_rows(margins, other_margins) | differing_rows(scores, other_scores)).sum())
    if n_differ:
        raise Refused(
            "golden_mismatch",
            f"inplace_predict and DMatrix differ on {n_differ} of {len(rows)} golden rows",
            where=where,
            remedy="report it to batchscore with the model: this must not be",
        )
    return golden_table(rows, margins, calibrated(margins, calibration, nthread=1))


def _scores_of(
    payload: bytes, rows: Frame, rounds: tuple[int, int], calibration: Sigmoid | Isotonic | None, *, where: str
) -> Counts:
    """The histogram of the scores of reference rows."""
    margins = predict_in_place(load_booster(payload, nthread=1, where=where), rows.matrix[~rows.unscorable], rounds)
    return histogram(calibrated(margins, calibration, nthread=1))


def _categorical(booster: xgb.Booster) -> Collection[str]:
    types = booster.feature_types or []
    return {name for name, kind in zip(booster.feature_names or [], types, strict=False) if kind == "c"}


def _described(facts: ModelFacts, about: About, where: str) -> dict[str, Any]:
    """The part of the manifest that says what the model is, as JSON values."""
    silent = tuple(Problem(where=name, what="has no reason code") for name in facts.names if name not in about.reasons)
    if silent:
        raise Refused(
            "bundle_invalid",
            "a reviewer could not be told what some features mean",
            where=where,
            problems=silent,
            remedy="give each a code and a sentence, such as '{value} mails in a day'",
        )
    return {
        "name": about.name,
        "written_by": facts.version_text,
        "packed_by": xgb.__version__,
        "packed_on": this_machine().model_dump(),
        "objective": facts.objective,
        "base_score": facts.base_score,
        "n_trees": facts.n_trees,
        "forest_digest": facts.forest_digest,
        "reasons": {name: about.reasons[name].model_dump() for name in facts.names},
        "trained_as_of": about.trained_as_of,
        "calibration": None if about.calibration is None else about.calibration.model_dump(),
        "notes": dict(about.notes),
    }


def _entry(path: str, payload: bytes) -> dict[str, str | int]:
    return {"path": path, "sha256": hashlib.sha256(payload).hexdigest(), "n_bytes": len(payload)}


def _publish(files: Mapping[str, bytes], folder: Path) -> Reference:
    """Write the files under a hidden name, load them from there as a worker would, then give them their name."""
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
    sha256 = hashlib.sha256(files[MANIFEST]).hexdigest()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.suffix == ".zip":
            write_zip(files, temporary)
        else:
            _write_folder(files, temporary)
        XGBoostScorer(read_checked(Reference(path=str(temporary / MANIFEST), sha256=sha256)))
        if temporary.is_dir():
            temporary.rename(folder)  # fails when another packer has put a bundle there meanwhile
        else:
            os.link(temporary, folder)  # so does this
        sync_folder(folder.parent)
    except OSError as error:
        raise AttemptFailed(
            "write_failed",
            in_words(error),
            where=str(folder),
            remedy="free space or mend the disk, then pack again",
        ) from error
    finally:
        if temporary.is_file():
            temporary.unlink(missing_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
    return Reference(path=str(folder / MANIFEST), sha256=sha256)


def _write_folder(files: Mapping[str, bytes], folder: Path) -> None:
    folder.mkdir()
    for name, payload in files.items():
        with (folder / name).open("xb") as stream:
            stream.write(payload)
            stream.flush()
            os.fsync(stream.fileno())
    sync_folder(folder)
