"""features check, show, sample, build: a feature set as reviewed text, in words, for a few accounts, and for all to train on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from batchscore.cli.options import JSON
from batchscore.observe.text import plain, shown_id

T = TypeVar("T")
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
    for about, sentence in (("accounts", explained.accounts), ("coverage", explained.coverage), ("leaks", explained.guard)):
        click.echo(f"{about}: {sentence}")
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
    from batchscore.spec import read_spec
    from batchscore.values import parse_moment

    moment = _parsed(parse_moment, as_of, "--as-of")
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
@click.option("--as-of", metavar="DATE", help="The moment the features are computed for, of every account.")
@click.option("--pairs", type=click.Path(path_type=Path), help="Instead: Parquet or CSV of account_id and as_of, a row each.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The new Parquet file.")
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="Parquet or CSV with account_id (or the account's key) and label, 0 or 1; also as_of, decided_at, probability.",
)
@click.option(
    "--queue-labels", is_flag=True, help="Instead: what people decided in the queue of SPEC; confirmed is 1, cleared 0."
)
@click.option("--mature", metavar="DURATION", help="Use decisions made within so long of the as-of, once they reach so far: 14d.")
@JSON
def build(  # noqa: PLR0913 (a command's options are its arguments)
    spec: Path, *, as_of: str | None, pairs: Path | None, out: Path, labels: Path | None, queue_labels: bool, mature: str | None,
    as_json: bool,
) -> int:  # fmt: skip
    """Write the features of every account of SPEC as of DATE to a file, to train on: the values that a run would score.

    The spec's bundles need not be there yet. With --pairs the frame has the rows that are asked for, and a column as_of. With
    --labels it has a column label, null where the file says nothing. Of labels with decided_at only those decided at the as-of
    or later count: features of an account that was decided on before may hold the decision. A probability, of having been
    chosen for a decision, gives a column weight, 1 / probability. With --queue-labels they are the queue's own decisions.
    """
    from batchscore.spec import read_spec
    from batchscore.training.frame import build_frame
    from batchscore.values import parse_duration, parse_moment

    if (as_of is None) == (pairs is None):
        raise click.UsageError("say --as-of DATE for every account, or --pairs FILE")
    if labels is not None and queue_labels:
        raise click.UsageError("--labels FILE and --queue-labels exclude each other")
    if mature is not None and labels is None and not queue_labels:
        raise click.UsageError("--mature says which labels count: add --labels FILE, or --queue-labels")
    asked = pairs or _parsed(parse_moment, as_of, "--as-of")
    matured = None if mature is None else _parsed(parse_duration, mature, "--mature")
    built = build_frame(read_spec(spec), asked, out, labels="queue" if queue_labels else labels, mature=matured)
    if as_json:
        click.echo(built.model_dump_json(indent=2))
        return 0
    first, last = (f"{moment:%Y-%m-%d %H:%M}" for moment in (built.as_ofs[0], built.as_ofs[-1]))
    when = f"as of {first} UTC" if first == last else f"as of {len(built.as_ofs)} moments, {first} to {last} UTC"
    click.echo(plain(f"{out}: {built.n_rows} {'accounts' if pairs is None else 'rows'}, {built.n_features} features {when}"))
    if built.n_absent:
        click.echo(f"pairs left out, of accounts that did not exist then: {built.n_absent}")
    if built.n_labelled is not None:
        click.echo(f"labelled: {built.n_labelled}, of these 1: {built.n_positive}; labels of no row here: {built.n_unused}")
    for n, what in (
        (built.n_early, "decided on before the as-of only, so without a label"),
        (built.n_immature, "without a label that is mature"),
        (built.n_changed, "decided on more than once and not alike: the latest counts"),
    ):
        if n:
            click.echo(f"{what}: {n}")
    return 0


def _parsed(parse: Callable[[object], T], value: object, hint: str) -> T:
    try:
        return parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=hint) from None
