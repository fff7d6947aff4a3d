"""init: a first spec and feature set."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchscore.cli.options import JSON
from batchscore.observe.text import plain

if TYPE_CHECKING:
    from batchscore.spec import SqlSource

_SQL = re.compile(r"sql:([a-z][a-z0-9_-]*)/(.+)", re.DOTALL)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path())
@click.option("--accounts", metavar="PATH|sql:NAME/TABLE", help="Your accounts: Parquet, or a table of a database by its name.")
@click.option("--events", type=click.Path(path_type=Path), help="Your events, such as mails: Parquet.")
@click.option("--key", metavar="COLUMN", default="", help="The account's id, where its name does not tell.")
@click.option("--created-at", metavar="COLUMN", default="", help="When an account was made.")
@click.option("--event-at", metavar="COLUMN", default="", help="When an event happened.")
@click.option("--known-at", metavar="COLUMN", default="", help="When an event became visible to you.")
@JSON
def init(  # noqa: PLR0913 (a command's options are its arguments)
    folder: Path,
    *,
    accounts: str | None,
    events: Path | None,
    key: str,
    created_at: str,
    event_at: str,
    known_at: str,
    as_json: bool,
) -> int:
    """Write a first spec and feature set into FOLDER, to be read and changed; they pass `check` as they are.

    With --accounts they are about your data, of which names and types of columns are looked at. Without, a small sample and a
    model are written too, so that check, run and queue work at once. Nothing is ever written over.
    """
    import json
    from datetime import UTC, datetime

    from batchscore.cli.schemas import schema_of
    from batchscore.init.guess import NamedColumns
    from batchscore.init.start import OwnData, start
    from batchscore.init.text import FEATURES_SCHEMA, SPEC_SCHEMA

    said = NamedColumns(key=key, created_at=created_at, event_at=event_at, known_at=known_at)
    if accounts is None and (events is not None or said != NamedColumns()):
        msg = "--events and the names of columns need --accounts"
        raise click.UsageError(msg)
    asked = None if accounts is None else OwnData(accounts=_accounts(accounts), events=events, said=said)
    schemas = {
        name: json.dumps(schema_of(of), indent=2, ensure_ascii=False) + "\n"
        for name, of in ((SPEC_SCHEMA, "spec"), (FEATURES_SCHEMA, "feature-set"))
    }
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    started = start(folder, asked, schemas, today)
    if as_json:
        click.echo(started.model_dump_json(indent=2))
        return 0
    click.echo(plain(f"{folder}: wrote {', '.join(started.written)}"))
    for guess in started.guessed:
        click.echo(plain(f"guessed {guess.of}: {guess.column or 'none'} ({guess.why})"))
    if not started.sample:
        click.echo("labels.parquet is yours to bring: the account's key and label, 1 for abuse and 0 for none")
    click.echo(plain("next: " + "\n      ".join(started.next)))
    return 0


def _accounts(text: str) -> SqlSource | Path:
    from batchscore.spec import SqlSource

    if match := _SQL.fullmatch(text):
        return SqlSource(url=match[1], table=match[2])
    return Path(text)
