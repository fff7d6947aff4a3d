"""What a bundle says of itself, what checking it found, and what differs between two: values that `batchscore bundle` prints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import AwareDatetime

from batchscore.errors import Refused
from batchscore.models.bundle import Bundle, Effect, Machine, Manifest, read_checked, read_manifest
from batchscore.spec import Value

if TYPE_CHECKING:
    from batchscore.models.scorer import Scorer


EFFECTS: Final[dict[Effect, str]] = {
    "raises": "only raise the score",
    "lowers": "only lower it",
    "none": "are asked for by no tree",
}


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


def verify(path: Path) -> BundleVerified:
    """Check the bundle at ``path`` as a worker would before its first partition, and by every route there is.

    Raises:
        Refused: the first thing that does not hold.
    """
    from batchscore.models.effects import effects_of  # noqa: PLC0415 (the values above need none of this)
    from batchscore.models.loading import fastest_scorer  # noqa: PLC0415
    from batchscore.models.machine import this_machine  # noqa: PLC0415
    from batchscore.models.probe import require_survivor_once  # noqa: PLC0415
    from batchscore.models.xgboost_scorer import XGBoostScorer  # noqa: PLC0415

    checked = read_checked(read_manifest(path).reference)
    manifest = checked.bundle.manifest
    require_survivor_once(checked)
    scorer = XGBoostScorer(checked)
    scorer.require_golden_by_dmatrix()
    effects = effects_of(checked.facts, manifest.iteration_range[1])
    untrue = [feature.name for feature in manifest.features if feature.effect not in {None, effects.get(feature.name)}]
    if untrue:
        raise Refused(
            "bundle_invalid",
            f"the manifest says of {', '.join(untrue)} what the trees do not do",
            where=manifest.name,
            remedy="pack the bundle again",
        )
    n_golden = f"{manifest.n_golden} rows equal to the bit"
    fast = fastest_scorer(checked, scorer)
    explained = _compiled(_explains(fast), "contributions equal to the bit", "explains")
    return BundleVerified(
        path=str(path),
        digest=checked.bundle.digest,
        machine=this_machine(),
        scorer=fast.name,
        checks=(
            BundleCheck(name="digests", found="manifest, model and golden rows have the bytes that were packed"),
            BundleCheck(
                name="model facts", found=f"{manifest.objective}, {manifest.n_trees} trees by XGBoost {manifest.written_by}"
            ),
            BundleCheck(name="effects", found=_effects(effects)),
            BundleCheck(name="first load", found="a child process loaded, scored and explained with it"),
            BundleCheck(name="golden rows, in place", found=n_golden),
            BundleCheck(name="golden rows, DMatrix", found=n_golden),
            BundleCheck(name="compiled scorer", found=_compiled(fast.name == "compiled", n_golden, "scores")),
            BundleCheck(name="compiled explainer", found=explained),
        ),
    )


def _effects(effects: Mapping[str, Effect]) -> str:
    said = ", ".join(f"{list(effects.values()).count(effect)} {words}" for effect, words in EFFECTS.items())
    return f"of the features {said}, whatever the row"


def _explains(scorer: Scorer) -> bool:
    """Whether the compiled explainer is installed and passes its certificate."""
    from batchscore.models.xgboost_scorer import XGBoostScorer  # noqa: PLC0415 (as above)

    if isinstance(scorer, XGBoostScorer):
        return False
    from batchscore.models.compiled_explainer import CompiledExplainer  # noqa: PLC0415 (needs the extra `fast`)

    return isinstance(scorer, CompiledExplainer) and scorer.certify()


def _compiled(used: bool, found: str, does: str) -> str:  # noqa: FBT001 (private)
    return found if used else f"not used here: XGBoost {does} (the log says why, or the extra `fast` is absent)"


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
