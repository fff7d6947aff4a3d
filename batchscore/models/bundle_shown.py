"""What `batchscore bundle` prints: a bundle, what checking one found, and what differs between two. Needs no XGBoost."""

from __future__ import annotations

from pathlib import Path

from pydantic import AwareDatetime

from batchscore.models.bundle import Bundle, Machine, Manifest
from batchscore.values import Value


class BundleShown(Value):
    """A bundle, as ``pack`` and ``show`` print it; ``manifest`` is all of it."""

    path: str
    digest: str
    manifest: Manifest

    @classmethod
    def of(cls, bundle: Bundle) -> BundleShown:
        """What stands in the bundle."""
        return cls(path=str(Path(bundle.reference.path).parent), digest=bundle.digest, manifest=bundle.manifest)


class BundlesShown(Value):
    """show: the bundle of a folder or zip, or those of a run spec, the one that flags first."""

    bundles: tuple[BundleShown, ...]


class BundleCheck(Value):
    """One thing that was checked, and that it holds."""

    name: str
    found: str


class BundleVerified(Value):
    """verify: everything holds here, on ``machine``; ``scorer`` is who would score (``compiled`` or ``xgboost``)."""

    path: str
    digest: str
    machine: Machine
    scorer: str
    checks: tuple[BundleCheck, ...]


class PartDiffers(Value):
    """One part of the manifests that differs, as text; empty where a bundle lacks it."""

    part: str
    a: str
    b: str


class BundleDiff(Value):
    """diff: what differs between bundles ``a`` and ``b`` (digests). ``same_trees``: they give equal margins to equal rows."""

    a: str
    b: str
    trained_as_of: tuple[AwareDatetime | None, AwareDatetime | None]
    same_trees: bool
    differences: tuple[PartDiffers, ...]


def difference(a: Bundle, b: Bundle) -> BundleDiff:
    """What differs between two bundles, part by part; lists and tables go by their entries."""
    sides = tuple(_flat(bundle.manifest.model_dump(mode="json")) for bundle in (a, b))
    parts = sorted(sides[0].keys() | sides[1].keys())
    return BundleDiff(
        a=a.digest,
        b=b.digest,
        trained_as_of=(a.manifest.trained_as_of, b.manifest.trained_as_of),
        same_trees=_deciding(a.manifest) == _deciding(b.manifest),
        differences=tuple(
            PartDiffers(part=part, a=sides[0].get(part, ""), b=sides[1].get(part, ""))
            for part in parts
            if sides[0].get(part) != sides[1].get(part)
        ),
    )


def _deciding(manifest: Manifest) -> tuple[object, ...]:
    # An older bundle may not tell the effects of equal trees.
    features = tuple(feature.model_copy(update={"effect": None}) for feature in manifest.features)
    return manifest.forest_digest, manifest.iteration_range, features


def _flat(value: object, place: str = "") -> dict[str, str]:
    """Every leaf of a JSON value by its place: ``reasons.age.code``; a list of named entries goes by name."""
    if isinstance(value, dict):
        entries = value.items()
    elif isinstance(value, list) and value and all(isinstance(entry, dict) and "name" in entry for entry in value):
        entries = {entry["name"]: {"place": number, **entry} for number, entry in enumerate(value)}.items()
    elif isinstance(value, list):
        return {place: ", ".join(map(str, value))}
    else:
        return {place: "" if value is None else str(value)}
    return {key: text for name, part in entries for key, text in _flat(part, f"{place}.{name}" if place else str(name)).items()}
