"""db: what a migrator and a DBA do to a store on MySQL. A driver needs none of it, and no right to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchscore.cli.options import JSON
from batchscore.command import word
from batchscore.errors import Refused
from batchscore.observe.text import plain

if TYPE_CHECKING:
    from batchscore.spec import RunSpec


@click.group()
def db() -> None:
    """Look after the MySQL database that a run spec names with 'database: NAME'."""


@db.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--sql", "only_sql", is_flag=True, help="Print the statements for a DBA to run, and change nothing.")
@JSON
def upgrade(spec: Path, *, only_sql: bool, as_json: bool) -> int:
    """Make the tables of the database that SPEC names, or bring them to this version."""
    from batchscore.cli.outputs import Upgraded
    from batchscore.features.feature_set import read_feature_set
    from batchscore.store.migrate import upgrade_database, upgrade_script

    asked = _on_mysql(spec)
    assert asked.database is not None
    kind = read_feature_set(Path(asked.feature_set)).account_id
    said = Upgraded(database=asked.database, account_id=kind)
    if only_sql:
        said = said.model_copy(update={"script": upgrade_script(asked.database, kind)})
    else:
        said = said.model_copy(update={"version": upgrade_database(Path(asked.store), asked.database, kind)})
    if as_json:
        click.echo(said.model_dump_json(indent=2))
    elif only_sql:
        click.echo(said.script)
    else:
        click.echo(plain(f"{said.database}: tables of version {said.version}, {kind} account ids"))
        click.echo(plain(f"an account may need more than before: batchscore db grants {word(spec)}"))
        click.echo(plain(f"next: batchscore run {word(spec)}"))
    return 0


@db.command()
@click.argument("spec", type=click.Path(path_type=Path))
@JSON
def grants(spec: Path, *, as_json: bool) -> int:
    """Print the GRANT statements of the four accounts that a store on MySQL needs. Changes nothing; run them after upgrade."""
    from batchscore.cli.outputs import Granted
    from batchscore.store.grants import grants
    from batchscore.store.place import database_of

    asked = _on_mysql(spec)
    assert asked.database is not None
    made = grants(database_of(asked.database))
    if as_json:
        click.echo(Granted(database=asked.database, grants={role: made[role] for role in made}).model_dump_json(indent=2))
        return 0
    for role, statements in made.items():
        click.echo(f"-- {role}")
        for statement in statements:
            click.echo(f"{statement};")
    return 0


def _on_mysql(spec: Path) -> RunSpec:
    from batchscore.spec import read_spec

    asked = read_spec(spec)
    if asked.database is None:
        raise Refused(
            "spec_invalid",
            "names no database: its runs are in the store's folder, and the first run makes them",
            where=str(spec),
            remedy="to keep them on MySQL, add 'database: NAME'",
        )
    return asked
