"""A model bundle: a folder, or a zip of one, whose manifest names all else in it by SHA-256. Reading one needs no xgboost.

```
manifest.json    what the model is, was made for and is made of; its SHA-256 is the bundle's digest
model.ubj        (or model.json) the booster
golden.parquet   rows of features with the margins and scores they gave when packed, to the bit
```
`pack` writes bundles; `scorer` loads them. Here they are only read and checked: every file against its digest, the model
file against the manifest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, Field, StrictInt, ValidationError, model_validator

from batchscore.errors import Problem, Refused
from batchscore.models.bounds import Bounds
from batchscore.models.calibration import Calibration
from batchscore.models.container import read_part
from batchscore.models.contract import CategorySet
from batchscore.models.model_document import NotReadable, read_json
from batchscore.models.model_file import ModelFacts, read_model_facts
from batchscore.plan import Reference
from batchscore.report.histogram import N_BINS
from batchscore.shown import Showable, Shown, ShownTable
from batchscore.values import NAME, Value

MANIFEST: Final = "manifest.json"
GOLDEN: Final = "golden.parquet"
BUNDLE_FORMAT: Final = 2
MAX_MANIFEST_BYTES: Final = 8 << 20
MAX_MODEL_BYTES: Final = 1 << 30
MAX_GOLDEN_BYTES: Final = 64 << 20

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Category = Annotated[str, Field(max_length=500, strict=True)]
Text = Annotated[str, Field(min_length=1, max_length=500)]
Effect = Literal["raises", "lowers", "none"]  # see `effects`


def _printable(texts: Iterable[str]) -> None:
    if not all(text.isprintable() for text in texts):
        msg = "a name or sentence holds control characters → remove them"
        raise ValueError(msg)


class FileEntry(Value):
    """A file of the bundle, beside the manifest."""

    path: Literal["model.ubj", "model.json", "golden.parquet"]
    sha256: Digest
    n_bytes: int = Field(ge=1)


class Feature(Value):
    """One column the model wants, and how it is held when scored. ``categories``: in the order of the model's codes.

    ``unseen``: what another value than those is, missing or a reason to reject the row. A frame that is not as ``expected``
    is told of, one that breaks ``limits`` is quarantined. ``effect``: what a larger value can do to the margin at all, where that
    is one thing; bundles packed before it was looked for do not say.
    """

    name: Text
    dtype: Literal["float32", "category"] = "float32"
    categories: tuple[StrictInt, ...] | tuple[Category, ...] = ()
    unseen: Literal["missing", "reject"] = "missing"
    expected: Bounds | None = None
    limits: Bounds | None = None
    effect: Effect | None = None

    @model_validator(mode="after")
    def _has_its_categories(self) -> Feature:
        if (self.dtype == "category") != bool(self.categories) or len(set(self.categories)) != len(self.categories):
            msg = "a category feature has its categories, each once, and no other feature has any"
            raise ValueError(msg)
        if self.categories and any(bound is not None and bound.has_range for bound in (self.expected, self.limits)):
            msg = "categories have no range → bound max_missing alone"
            raise ValueError(msg)
        _printable(value for value in self.categories if isinstance(value, str))
        return self


class Machine(Value):
    """Where the golden rows were computed: ``architecture`` as Python's ``platform.machine()`` says, and the CPU's model."""

    architecture: Text
    cpu: Text

    def __str__(self) -> str:
        return f"{self.cpu} ({self.architecture})"


class ReasonTemplate(Value):
    """How a feature is said to a reviewer. ``{value}`` stands for the feature's value; nothing else is special."""

    code: str = Field(pattern=NAME)
    sentence: Text


class Manifest(Value):
    """What a bundle is. ``features`` are in the model's order; ``reasons`` has one entry for each of them.

    ``iteration_range`` is the rounds scored with, from 0. ``base_score`` is the text the model file keeps. ``notes`` are for
    people (base rate, data, author) and change nothing but the digest.
    """

    format: Literal[2] = BUNDLE_FORMAT
    name: str = Field(pattern=NAME)
    model: FileEntry
    golden: FileEntry
    n_golden: int = Field(ge=1)
    written_by: str  # the XGBoost that saved the model file
    packed_by: str  # the XGBoost that computed the golden rows
    packed_on: Machine
    objective: Literal["binary:logistic"]
    features: tuple[Feature, ...] = Field(min_length=1)
    feature_set_digest: Digest
    base_score: str
    missing: Literal["NaN"] = "NaN"
    n_trees: int = Field(ge=1)
    forest_digest: Digest  # of the trees as values: the same for model.ubj and model.json
    iteration_range: tuple[int, int]
    reasons: dict[str, ReasonTemplate]
    trained_as_of: AwareDatetime | None = None
    calibration: Calibration | None = None  # after the margin; the golden scores have it
    # Of the reference rows, counted as `report.histogram` counts: what drift is measured against before there is an earlier run.
    scores: Annotated[tuple[StrictInt, ...], Field(min_length=N_BINS, max_length=N_BINS)] | None = Field(
        default=None, exclude_if=lambda counts: counts is None
    )
    notes: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_whole(self) -> Manifest:
        names = self.names
        if len(set(names)) != len(names):
            msg = "a feature name stands twice → keep one"
            raise ValueError(msg)
        if set(names) != set(self.reasons):
            msg = "reasons and features are not the same names → give each feature a code and a sentence"
            raise ValueError(msg)
        if self.trained_as_of is not None and self.trained_as_of.utcoffset() != timedelta(0):
            msg = "trained_as_of is not in UTC → write it with Z"
            raise ValueError(msg)
        _printable(names)
        _printable(template.sentence for template in self.reasons.values())
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Feature names in the model's order."""
        return tuple(feature.name for feature in self.features)

    @property
    def category_sets(self) -> dict[str, CategorySet]:
        """What `conform` needs to bring categories to codes."""
        return {
            feature.name: CategorySet(known=feature.categories, unseen=feature.unseen)
            for feature in self.features
            if feature.dtype == "category"
        }


@dataclass(frozen=True, slots=True, repr=False)
class Bundle(Showable):
    """A manifest and where it lies; ``reference`` is what travels, its sha256 is the bundle's digest."""

    manifest: Manifest
    reference: Reference

    @property
    def digest(self) -> str:
        """64 hex; two bundles of one digest give equal bits."""
        return self.reference.sha256

    def shown(self) -> Shown:
        """What the manifest says, and the sentence of each feature."""
        held = self.manifest
        facts = [
            ("digest", self.digest),
            ("trained as of", "unknown" if held.trained_as_of is None else f"{held.trained_as_of:%Y-%m-%d}"),
            ("trees", f"{held.n_trees:,}"),
            ("feature set", held.feature_set_digest),
            ("calibration", "none" if held.calibration is None else held.calibration.kind),
            ("written by", f"xgboost {held.written_by}"),
            *sorted(held.notes.items()),
        ]
        rows = [(name, held.reasons[name].code, held.reasons[name].sentence) for name in held.names]
        return Shown(f"bundle {held.name}", facts, (ShownTable(("feature", "reason", "sentence"), rows),))


@dataclass(frozen=True, slots=True)
class CheckedBundle:
    """A bundle whose bytes were found to be those of the manifest. What is loaded must be these bytes, not the files again."""

    bundle: Bundle
    model: bytes
    golden: bytes
    facts: ModelFacts


def read_manifest(folder: Path) -> Bundle:
    """The bundle in ``folder``, or the zip of that name, all checked: files against digests, the model file against the manifest.

    Reads only; XGBoost is not imported and the golden rows are not computed: that is `loading.load_scorer`'s.

    Raises:
        Refused: ``file_missing``, ``bundle_invalid``, ``bundle_digest``, ``model_format``, ``model_version``,
            ``model_objective`` or ``feature_contract``.
    """
    path = folder.absolute() / MANIFEST
    payload = read_part(path.parent, MANIFEST, MAX_MANIFEST_BYTES)
    return _checked(path, payload, hashlib.sha256(payload).hexdigest()).bundle


def read_checked(reference: Reference) -> CheckedBundle:
    """The bytes of the bundle that ``reference`` (to its manifest) names, all checked.

    Raises:
        Refused: as `read_manifest`; also ``bundle_digest`` when the manifest is no longer the one referenced.
    """
    path = Path(reference.path)
    return _checked(path, _manifest_bytes(path, reference.sha256), reference.sha256)


def manifest_of(reference: Reference) -> Manifest:
    """The manifest that ``reference`` names, checked; the files it names are left alone.

    Raises:
        Refused: ``file_missing``, ``bundle_digest`` or ``bundle_invalid``.
    """
    path = Path(reference.path)
    return parse_manifest(_manifest_bytes(path, reference.sha256), where=f"{path.parent.name}/{path.name}")


def _manifest_bytes(path: Path, sha256: str) -> bytes:
    payload = read_part(path.parent, MANIFEST, MAX_MANIFEST_BYTES)
    if hashlib.sha256(payload).hexdigest() != sha256:
        raise _changed(path)
    return payload


def _checked(path: Path, payload: bytes, digest: str) -> CheckedBundle:
    manifest = parse_manifest(payload, where=f"{path.parent.name}/{path.name}")
    model = _entry_bytes(path, manifest.model, MAX_MODEL_BYTES)
    golden = _entry_bytes(path, manifest.golden, MAX_GOLDEN_BYTES)
    facts = read_model_facts(model, where=f"{path.parent.name}/{manifest.model.path}")
    _refuse_contradiction(manifest, facts, where=path.parent.name)
    return CheckedBundle(Bundle(manifest, Reference(path=str(path), sha256=digest)), model, golden, facts)


def parse_manifest(payload: bytes, *, where: str) -> Manifest:
    """A manifest from its JSON.

    Raises:
        Refused: ``bundle_invalid`` with every mistake.
    """
    try:
        read_json(payload)  # a key that stands twice is no mistake to pydantic
        return Manifest.model_validate_json(payload)
    except NotReadable as error:
        raise Refused(
            "bundle_invalid", f"the manifest is damaged: {error}", where=where, remedy="restore it, or pack again"
        ) from None
    except ValidationError as error:
        problems = tuple(
            Problem(where=".".join(map(str, mistake["loc"])) or "manifest", what=mistake["msg"].removeprefix("Value error, "))
            for mistake in error.errors(include_url=False, include_input=False)
        )
        raise Refused(
            "bundle_invalid",
            "the manifest has mistakes",
            where=where,
            problems=problems,
            remedy="pack the bundle again with this version of batchscore",
        ) from None


def _entry_bytes(manifest: Path, entry: FileEntry, limit: int) -> bytes:
    payload = read_part(manifest.parent, entry.path, limit)
    if len(payload) != entry.n_bytes or hashlib.sha256(payload).hexdigest() != entry.sha256:
        raise _changed(manifest.parent / entry.path)
    return payload


def _changed(path: Path) -> Refused:
    return Refused(
        "bundle_digest",
        "the file's bytes are not those that were packed",
        where=f"{path.parent.name}/{path.name}",
        remedy="restore the bundle from where it was packed, or pack it again",
    )


def _refuse_contradiction(manifest: Manifest, facts: ModelFacts, *, where: str) -> None:
    if manifest.names != facts.names:
        raise Refused(
            "feature_contract",
            "the manifest's feature names are not the model's, in the model's order",
            where=where,
            remedy="pack the bundle again",
        )
    sets = {name: categories.known for name, categories in manifest.category_sets.items()}
    if sets.keys() != facts.categories.keys() or any(known and sets[name] != known for name, known in facts.categories.items()):
        raise Refused(
            "feature_contract", "the manifest's categories are not the model's", where=where, remedy="pack the bundle again"
        )
    first, last = manifest.iteration_range
    said = (manifest.n_trees, manifest.base_score, manifest.written_by, manifest.model.path, manifest.golden.path)
    found = (facts.n_trees, facts.base_score, facts.version_text, f"model.{facts.suffix}", GOLDEN)
    if manifest.forest_digest != facts.forest_digest:
        raise Refused(
            "bundle_digest", "the model's trees are not those that were packed", where=where, remedy="pack the bundle again"
        )
    if said != found or first != 0 or not 0 < last <= facts.n_rounds:
        raise Refused("bundle_invalid", "the manifest contradicts its model file", where=where, remedy="pack the bundle again")
