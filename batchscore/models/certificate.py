"""Checks a bundle as a worker would before its first partition, and by every route there is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from batchscore.errors import Refused
from batchscore.models.bundle import Effect, read_checked, read_manifest
from batchscore.models.bundle_shown import BundleCheck, BundleVerified
from batchscore.models.effects import effects_of
from batchscore.models.loading import fastest_scorer
from batchscore.models.machine import this_machine
from batchscore.models.probe import require_survivor_once
from batchscore.models.scorer import Scorer
from batchscore.models.xgboost_scorer import XGBoostScorer

EFFECTS: Final[dict[Effect, str]] = {
    "raises": "only raise the score",
    "lowers": "only lower it",
    "none": "are asked for by no tree",
}


def verify(path: Path) -> BundleVerified:
    """Check the bundle at ``path`` as a worker would before its first partition, and by every route there is.

    Raises:
        Refused: the first thing that does not hold.
    """
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
    explained = _compiled("contributions equal to the bit", "explains", used=_explains(fast))
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
            BundleCheck(name="compiled scorer", found=_compiled(n_golden, "scores", used=fast.name == "compiled")),
            BundleCheck(name="compiled explainer", found=explained),
        ),
    )


def _effects(effects: Mapping[str, Effect]) -> str:
    said = ", ".join(f"{list(effects.values()).count(effect)} {words}" for effect, words in EFFECTS.items())
    return f"of the features {said}, whatever the row"


def _explains(scorer: Scorer) -> bool:
    """Whether the compiled explainer is installed and passes its certificate."""
    if isinstance(scorer, XGBoostScorer):
        return False
    from batchscore.models.compiled_explainer import CompiledExplainer  # noqa: PLC0415 (needs the extra `fast`)

    return isinstance(scorer, CompiledExplainer) and scorer.certify()


def _compiled(found: str, does: str, *, used: bool) -> str:
    return found if used else f"not used here: XGBoost {does} (the log says why, or the extra `fast` is absent)"
