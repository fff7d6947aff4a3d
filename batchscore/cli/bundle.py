"""bundle: pack a trained model with all that scoring it needs; show, verify and compare what was packed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchscore.cli.options import JSON
from batchscore.observe.text import plain

if TYPE_CHECKING:
    from batchscore.features.feature_set import FeatureSet
    from batchscore.models.bundle import Bundle, ReasonTemplate
    from batchscore.models.bundle_shown import BundleShown

PLACE = click.Path(path_type=Path)
MAX_SHOWN = 12
_EFFECTS = {None: "", "raises": ", only raises the score", "lowers": ", only lowers the score", "none": ", no tree asks for it"}


@click.group()
def bundle() -> None:
    """Pack a trained model into a bundle; show, verify and compare bundles.

    A bundle is a folder, or a zip of one: the model, a manifest, and golden rows with the margins they must give to the bit.
    """


@bundle.command()
@click.argument("model", type=PLACE)
@click.option("--features", "feature_set", type=PLACE, required=True, help="The feature set it was trained for.")
@click.option("--golden", type=PLACE, required=True, help="Rows of features, Parquet: a few hundred, some with values missing.")
@click.option("--out", type=PLACE, required=True, help="The new folder, or NAME.zip.")
@click.option("--name", help="What to call it.  [default: the feature set's name]")
@click.option("--reasons", type=PLACE, help="YAML: reasons: {feature: {code, sentence}}.  [default: the feature set's own words]")
@click.option("--categories", type=PLACE, help="YAML: categories: {feature: {values: [a, b], unseen: missing|reject}}.")
@click.option("--reference", type=PLACE, help="Rows of features, Parquet, as in training: a partition unlike them is told of.")
@click.option("--limits", type=PLACE, help="YAML: limits: {feature: {max_missing: 0.5, low: 0, high: 9}}: what quarantines.")
@click.option("--calibration", type=PLACE, help="YAML: calibration: {kind: sigmoid, slope: …, intercept: …}, or isotonic knots.")
@click.option("--trained-as-of", "trained_as_of", metavar="DATE", help="What the model knew: a date, or a time with a zone.")
@click.option(
    "--iteration-range", "n_rounds", type=click.IntRange(min=1), metavar="N", help="Score with the first N rounds only."
)
@JSON
def pack(  # noqa: PLR0913 (one for each part of a bundle)
    model: Path,
    feature_set: Path,
    golden: Path,
    out: Path,
    *,
    name: str | None,
    reasons: Path | None,
    categories: Path | None,
    reference: Path | None,
    limits: Path | None,
    calibration: Path | None,
    trained_as_of: str | None,
    n_rounds: int | None,
    as_json: bool,
) -> int:
    """Pack MODEL, a file that booster.save_model('model.ubj') wrote, checked as strictly as it will be on every worker."""
    from batchscore.features.feature_set import read_feature_set
    from batchscore.models.bundle import MAX_MODEL_BYTES, read_manifest
    from batchscore.models.bundle_shown import BundleShown
    from batchscore.models.pack import About, pack_bundle
    from batchscore.models.pack_files import read_calibration, read_categories, read_limits, read_rows

    features = read_feature_set(feature_set)
    about = About(
        name=name or features.feature_set,
        reasons=_reasons(reasons, features),
        limits={} if limits is None else read_limits(limits),
        calibration=None if calibration is None else read_calibration(calibration),
        categories={} if categories is None else read_categories(categories),
        trained_as_of=None if trained_as_of is None else _moment(trained_as_of),
        iteration_range=None if n_rounds is None else (0, n_rounds),
    )
    pack_bundle(
        model,
        out,
        features=features.names,
        feature_set_digest=features.digest,
        golden=read_rows(golden),
        about=about,
        reference=reference and read_rows(reference, limit=MAX_MODEL_BYTES),
    )
    _show((BundleShown.of(read_manifest(out)),), as_json=as_json, only=True)
    return 0


@bundle.command()
@click.argument("place", metavar="BUNDLE|SPEC", type=PLACE)
@JSON
def show(place: Path, *, as_json: bool) -> int:
    """Show what BUNDLE (a folder or zip), or each bundle of SPEC, is: its digest, model, features and reasons."""
    from batchscore.models.bundle_shown import BundleShown

    _show(tuple(map(BundleShown.of, _bundles(place))), as_json=as_json)
    return 0


@bundle.command()
@click.argument("place", metavar="BUNDLE", type=PLACE)
@JSON
def verify(place: Path, *, as_json: bool) -> int:
    """Check BUNDLE on this machine: digests, facts, and golden rows to the bit by every route there is."""
    from batchscore.models.certificate import verify as verified

    found = verified(place)
    if as_json:
        click.echo(found.model_dump_json(indent=2))
        return 0
    for check in found.checks:
        click.echo(plain(f"ok  {check.name}: {check.found}"))
    click.echo(plain(f"bundle {found.digest[:12]} holds on {found.machine}"))
    return 0


@bundle.command()
@click.argument("place_a", metavar="A", type=PLACE)
@click.argument("place_b", metavar="B", type=PLACE)
@JSON
def diff(place_a: Path, place_b: Path, *, as_json: bool) -> int:
    """Show what differs between bundles A and B, part by part."""
    from batchscore.models.bundle import read_manifest
    from batchscore.models.bundle_shown import difference

    found = difference(read_manifest(place_a), read_manifest(place_b))
    if as_json:
        click.echo(found.model_dump_json(indent=2))
        return 0
    for part in found.differences:
        click.echo(plain(f"{part.part}: {part.a or '–'} → {part.b or '–'}"))
    click.echo("equal trees: both give the same margins" if found.same_trees else "other trees: margins differ")
    return 0


def _reasons(path: Path | None, features: FeatureSet) -> dict[str, ReasonTemplate]:
    """A code and a sentence for each feature: the file's; else the feature's name, and what the feature set says of it."""
    from batchscore.models.bundle import ReasonTemplate
    from batchscore.models.pack_files import read_reasons

    given = {} if path is None else read_reasons(path, features.names)
    own = {name: ReasonTemplate(code=name, sentence=features.describe(name)) for name in features.names}
    return own | given


def _moment(text: str) -> datetime:
    from batchscore.values import parse_moment

    try:
        return parse_moment(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--trained-as-of") from None


def _bundles(place: Path) -> Iterable[Bundle]:
    from batchscore.models.bundle import read_manifest
    from batchscore.spec import read_spec

    paths = map(Path, read_spec(place).bundle_paths) if place.suffix in {".yaml", ".yml"} else [place]
    return map(read_manifest, paths)


def _show(shown: tuple[BundleShown, ...], *, as_json: bool, only: bool = False) -> None:
    from batchscore.models.bundle_shown import BundlesShown

    if as_json:
        click.echo((shown[0] if only else BundlesShown(bundles=shown)).model_dump_json(indent=2))
        return
    for one in shown:
        manifest = one.manifest
        trained = "" if manifest.trained_as_of is None else f", trained as of {manifest.trained_as_of:%Y-%m-%d}"
        click.echo(plain(f"bundle {manifest.name} {one.digest[:12]}  {one.path}"))
        click.echo(f"  model    {manifest.objective}, {manifest.iteration_range[1]} rounds, {manifest.n_trees} trees{trained}")
        click.echo(
            f"  written  by XGBoost {manifest.written_by}, packed by {manifest.packed_by} on {plain(str(manifest.packed_on))}"
        )
        if manifest.calibration is not None:
            click.echo(f"  score    calibrated after the margin: {manifest.calibration.kind}")
        click.echo(f"  golden   {manifest.n_golden} rows")
        effects = {feature.name: feature.effect for feature in manifest.features}
        for name in manifest.names[:MAX_SHOWN]:
            reason = manifest.reasons[name]
            categories = manifest.category_sets.get(name)
            among = "" if categories is None else f", one of {len(categories.known)} categories (another: {categories.unseen})"
            click.echo(plain(f"  feature  {name}: {reason.code}, “{reason.sentence}”{among}{_EFFECTS[effects[name]]}"))
        if len(manifest.names) > MAX_SHOWN:
            click.echo(f"  feature  … and {len(manifest.names) - MAX_SHOWN} more (--json has all)")
