"""What a plan pins: every part whose change would change scores or flags, by a name that a person understands."""

from __future__ import annotations

from collections.abc import Sequence

from batchscore.acceptance import LIBRARY
from batchscore.digest import digest_of
from batchscore.features.feature_set import FeatureSet
from batchscore.features.python import fingerprints
from batchscore.models.bundle import Bundle
from batchscore.plan import BUNDLE, FUNCTION, SHADOW, STAGE_FORMAT, InputFile
from batchscore.settings import library_versions
from batchscore.spec import RunSpec, Source


def pinned_of(
    spec: RunSpec, feature_set: FeatureSet, bundles: Sequence[Bundle], inputs: dict[str, tuple[InputFile, ...]]
) -> dict[str, str]:
    """Every part whose change would change scores or flags, by a name that a person understands. The first bundle flags."""
    pinned = {
        "spec": spec.name,
        "feature set": feature_set.digest,
        "policy": digest_of(spec.policy.pinned()),
        "as-of dates": digest_of(list(spec.as_ofs())),
        "release": spec.release,
    }
    if feature_set.coverage is not None:
        pinned["coverage"] = str(feature_set.coverage)
    if spec.segment:
        pinned["segment"] = spec.segment
    if spec.groups:
        pinned["groups"] = digest_of(list(spec.groups))
    if spec.gate:
        pinned["gate"] = digest_of({table: gate.model_dump(mode="json") for table, gate in spec.gate.items()})
    if spec.limits is not None:  # else editing them would be an approval by nobody
        pinned["limits"] = digest_of(spec.limits.model_dump(mode="json"))
    for place, bundle in enumerate(bundles):
        pinned[f"{SHADOW if place else BUNDLE}{bundle.manifest.name}"] = bundle.digest
    for table, source in spec.sources.items():
        pinned[f"source {table}"] = _pinned_source(source, inputs.get(table, ()))
    pinned |= {f"{FUNCTION}{name}": pin for name, pin in fingerprints(feature_set).items()}
    pinned["stage formats"] = ", ".join(f"{stage} {number}" for stage, number in sorted(STAGE_FORMAT.items()))
    return pinned | {f"{LIBRARY}{name}": version for name, version in library_versions()}


def _pinned_source(source: Source, files: Sequence[InputFile]) -> str:
    """Parquet by path, size, time of change and footer of each file; a live table by its names, its rows are frozen later.

    How gently it is read is no part: it may be changed while a run waits.
    """
    if source.sql is not None:
        return digest_of(source.sql.model_dump(mode="json", exclude={"gentle"}))
    return digest_of([(file.path, file.n_bytes, file.mtime_ns, file.footer_sha256) for file in files])
