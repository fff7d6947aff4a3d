"""cluster: what a Dask cluster of one's own needs before it starts."""

from __future__ import annotations

from pathlib import Path

import click

from batchscore.cli.options import JSON
from batchscore.command import word
from batchscore.observe.text import plain


@click.group()
def cluster() -> None:
    """Certificates for a Dask cluster's scheduler, workers and clients."""


@cluster.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--host", "hosts", multiple=True, metavar="NAME", help="A host of the cluster, by name or address; may be repeated."
)
@click.option("--days", type=click.IntRange(1, 825), default=90, show_default=True, help="How long certificates hold.")
@click.option("--renew", is_flag=True, help="New certificates under the CA that lies in FOLDER.")
@JSON
def certs(folder: Path, *, hosts: tuple[str, ...], days: int, renew: bool, as_json: bool) -> int:
    """Make a CA in FOLDER and a certificate each for scheduler, worker and client; keys are readable by you alone.

    Whoever holds any of them may run code on the workers. The CA's key never leaves FOLDER: no host of the cluster needs it.
    """
    from batchscore.certificates import CA, make_certificates

    made = make_certificates(folder, hosts=hosts, days=days, renew=renew)
    if as_json:
        click.echo(made.model_dump_json(indent=2))
        return 0
    for one in made.certificates:
        stays = "  stays here" if one.role == CA else ""
        click.echo(plain(f"{one.role:<9}  {one.certificate}  holds until {one.not_after:%Y-%m-%d}{stays}"))
    click.echo("each host gets ca.pem, and the .pem and .key of its role")
    click.echo(plain(f"before they end: batchscore cluster certs {word(folder)} --renew"))
    return 0
