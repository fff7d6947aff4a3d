"""features check, show, sample, build: a feature set as reviewed text, in words, for a few accounts, and for all to train on."""

from __future__ import annotations

from pathlib import Path

import click

from batchscore.cli.options import JSON
from batchscore.observe.text import plain, shown_id

FILE = click.argument("file", type=click.Path(path_type=Path))


@click.group()
def features() -> None:
    """Check and explain a feature set, show it for a few accounts, or build the frame to train on."""


@features.command()
@FILE
@JSON
def check(file: Path, *, as_json: bool) -> int:
    """Find every mistake in the feature set FILE, and call its Python functions on permuted and split rows. Writes nothing."""
    from batchscore.features.feature_set import read_feature_set
    from batchscore.features.python import check_row_wise, fingerprints

    feature_set = read_feature_set(file)
    fingerprints(feature_set)
    check_row_wise(feature_set)
    if as_json:
        from batchscore.cli.outputs import FeaturesChecked

        said = FeaturesChecked(feature_set=str(file), n_features=len(feature_set.names), digest=feature_set.digest)
        click.echo(said.model_dump_json(indent=2))
        return 0
    click.echo(f"{plain(file.name)}: no mistakes; {len(feature_set.names)} features; digest {feature_set.digest[:12]}")
    return 0


@features.command()
@FILE
@JSON
def show(file: Path, *, as_json: bool) -> int:
    """Explain each feature of FILE: a sentence, its window, what nulls and no events give, and how far it may be off."""
    from batchscore.features.feature_set import read_feature_set

    explained = read_feature_set(file).explained()
    if as_json:
        click.echo(explained.model_dump_json(indent=2))
        return 0
    click.echo(f"{explained.feature_set} version {explained.version}, grain {explained.grain}, digest {explained.digest[:12]}")
    for feature in explained.features:
        click.echo(f"\n{feature.name}\n  {plain(feature.sentence)}\n  over: {feature.window}")
        if feature.empty:
            click.echo(f"  without events: {feature.empty}")
        click.echo(f"  nulls: {feature.nulls}")
        if feature.error:
            click.echo(f"  error: {feature.error}")
    return 0


@features.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--as-of", metavar="DATE", required=True, help="The moment the features are computed for.")
@click.option("-n", "n_accounts", type=click.IntRange(1, 1_000), default=5, show_default=True, help="How many accounts.")
@JSON
def sample(spec: Path, as_of: str, n_accounts: int, *, as_json: bool) -> int:
    """Show the features of a few accounts of SPEC as of DATE. Reads the whole input; writes nothing that stays."""
    from batchscore.features.sentences import Sampled, value_in_words
    from batchscore.sampling import sample_features
    from batchscore.spec import parse_moment, read_spec

    try:
        moment = parse_moment(as_of)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--as-of") from None
    feature_set, frame = sample_features(read_spec(spec), moment, n_accounts)
    sampled = Sampled.of(moment, feature_set.features, frame.to_pylist())
    if as_json:
        click.echo(sampled.model_dump_json(indent=2))
        return 0
    for account in sampled.accounts:
        click.echo(f"account {shown_id(account.account_id)}")
        for name, value in account.values.items():
            said = plain(account.sentences[name])
            click.echo(f"  {name:<24} {plain(value_in_words(value)):>12}  {said}")
    return 0


@features.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--as-of", metavar="DATE", required=True, help="The moment the features are computed for.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The new Parquet file.")
@click.option("--labels", type=click.Path(path_type=Path), help="Parquet with the account's key and label: 0 or 1.")
@JSON
def build(spec: Path, as_of: str, out: Path, labels: Path | None, *, as_json: bool) -> int:
    """Write the features of every account of SPEC as of DATE to a file, to train on: the values that a run would score.

    The spec's bundles need not be there yet. With --labels the frame has a column label, null where the file says nothing.
    """
    from batchscore.spec import parse_moment, read_spec
    from batchscore.training.frame import build_frame

    try:
        moment = parse_moment(as_of)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--as-of") from None
    built = build_frame(read_spec(spec), moment, out, labels=labels)
    if as_json:
        click.echo(built.model_dump_json(indent=2))
        return 0
    click.echo(plain(f"{out}: {built.n_rows} accounts, {built.n_features} features as of {moment:%Y-%m-%d %H:%M} UTC"))
    if built.n_labelled is not None:
        click.echo(f"labelled: {built.n_labelled}, of these 1: {built.n_positive}; labels of no account here: {built.n_unused}")
    return 0
