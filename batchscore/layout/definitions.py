"""What every partition of a run refers to, and what an address is the digest of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from batchscore.features.feature_set import FeatureSet
from batchscore.files import named_by_digest, write_named_by_digest
from batchscore.plan import FEATURE_SETS, Plan, Reference
from batchscore.settings import library_versions


@dataclass(frozen=True, kw_only=True, slots=True)
class Definitions:
    """What every partition of a run refers to: the store, the feature set (also as a frozen file) and the bundles.

    ``bundle`` flags; ``shadows`` are scored beside it.
    """

    store: Path
    feature_set: FeatureSet
    feature_set_file: Reference
    bundle: Reference
    shadows: tuple[Reference, ...]

    @classmethod
    def of(cls, plan: Plan) -> Definitions:
        """Those of a plan; nothing is written."""
        store = Path(plan.spec.store)
        held = named_by_digest(plan.feature_set.encode(), store / FEATURE_SETS, "json")
        feature_set = FeatureSet.thaw(plan.feature_set)
        bundle, *shadows = plan.bundles
        return cls(store=store, feature_set=feature_set, feature_set_file=held, bundle=bundle, shadows=tuple(shadows))

    def kept(self, plan: Plan) -> Definitions:
        """Keep a copy of the feature set in the store, so that editing the YAML cannot change a run under way."""
        write_named_by_digest(plan.feature_set.encode(), self.store / FEATURE_SETS, "json")
        return self


def what_it_reads(parameters: Mapping[str, object], **more: object) -> dict[str, object]:
    """What an address is the digest of: parameters, inputs, and the libraries that decide bits."""
    files = more.get("files")
    if isinstance(files, tuple):
        more["files"] = [file.model_dump(mode="json") for file in files]
    return {**parameters, **more, "libraries": library_versions()}
