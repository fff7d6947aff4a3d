"""Whether spec, feature set and bundles speak of the same tables, features and grain. Nothing is read but what they say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from batchscore.errors import Problem, Refused
from batchscore.features.definitions import DAY
from batchscore.features.feature_set import FeatureSet
from batchscore.models.bundle import Bundle
from batchscore.sources.segment import gate_problems, group_problems
from batchscore.spec import RunSpec
from batchscore.spelling import did_you_mean


def refuse_mismatch(spec: RunSpec, feature_set: FeatureSet, bundles: Sequence[Bundle]) -> None:
    """Raise Refused unless spec, feature set and bundles speak of the same tables, features and grain."""
    accounts = feature_set.accounts
    problems = (
        *_problems_of_tables(spec, feature_set),
        *_problems_of_as_ofs(spec, feature_set),
        *gate_problems(spec.gate, feature_set, spec.sources),
        *group_problems(spec.segment, spec.groups, accounts, feature_set.column_names(accounts.table)),
        *_problems_of_counts(spec, feature_set),
        *_problems_of_names(bundles),
    )
    if problems:
        raise Refused("spec_invalid", f"{len(problems)} mistake(s)", where=spec.name, problems=problems)
    for bundle in bundles:
        _refuse_other_features(bundle, feature_set)


def _problems_of_tables(spec: RunSpec, feature_set: FeatureSet) -> Iterator[Problem]:
    tables = [feature_set.accounts.table, *(events.table for events in feature_set.events)]
    for name in spec.sources:
        if name not in tables:
            remedy = f"its tables are: {', '.join(tables)}"
            yield Problem(where=f"sources.{name}", what="the feature set has no such table", remedy=remedy)
    for name in tables:
        if name not in spec.sources:
            yield Problem(where=f"sources.{name}", what="the feature set needs this table", remedy="say where it is")


def _problems_of_as_ofs(spec: RunSpec, feature_set: FeatureSet) -> Iterator[Problem]:
    if spec.as_of is None:
        how = "add it, or say it on the command line: batchscore backfill SPEC --from … --to …, or batchscore sweep SPEC"
        yield Problem(where="as_of", what="is missing", remedy=how)
    of_days = feature_set.grain == DAY
    grain, remedy = ("day", "use dates: the grain is 1d") if of_days else ("hour", "use full hours: the grain is 1h")
    for as_of in spec.as_ofs():
        if not feature_set.is_whole(as_of):
            yield Problem(where="as_of", what=f"{as_of.isoformat()} is not a whole {grain} in UTC", remedy=remedy)


def _problems_of_counts(spec: RunSpec, feature_set: FeatureSet) -> Iterator[Problem]:
    for name in spec.policy.again.counts if spec.policy.again else ():
        if name not in feature_set.features:
            where = f"policy.again.counts.{name}"
            yield Problem(where=where, what="the feature set makes no such feature", remedy="name one of its features")


def _problems_of_names(bundles: Sequence[Bundle]) -> Iterator[Problem]:
    names = [bundle.manifest.name for bundle in bundles]
    for name in sorted(set(names)):
        if names.count(name) > 1:
            what = f"{names.count(name)} bundles are named {name!r}, and reports could not tell them apart"
            yield Problem(where="bundles", what=what, remedy="pack one under another name: batchscore bundle pack --name")


def _refuse_other_features(bundle: Bundle, feature_set: FeatureSet) -> None:
    missing = [name for name in bundle.manifest.names if name not in feature_set.features]
    if missing:
        what = "the model wants it, the feature set does not make it"
        problems = tuple(Problem(where=name, what=what, remedy=did_you_mean(name, feature_set.names)) for name in missing)
        raise Refused(
            "feature_contract",
            f"the bundle {bundle.manifest.name!r} wants other features",
            problems=problems,
            remedy="use the feature set the bundle was trained for",
        )
    for feature in bundle.manifest.features:
        wanted = "text" if feature.categories and isinstance(feature.categories[0], str) else "numbers"
        made = "text" if feature.name in feature_set.categories else "numbers"
        if wanted != made:
            raise Refused(
                "feature_contract",
                f"the bundle {bundle.manifest.name!r} wants {wanted} of a feature that is made of {made}",
                where=feature.name,
                remedy="train and pack with this feature set: a category is text, split on by its values",
            )
    if bundle.manifest.feature_set_digest != feature_set.digest:
        raise Refused(
            "feature_contract",
            f"the bundle {bundle.manifest.name!r} was trained with another version of this feature set",
            where=f"feature set {feature_set.digest[:12]}, bundle wants {bundle.manifest.feature_set_digest[:12]}",
            remedy="use that version, or train and pack again: equal names may hold other values",
        )
