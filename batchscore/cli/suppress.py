"""suppress: accounts, a domain or a segment are scored and not flagged for a while, with an owner, a reason and an end."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchscore.cli.options import BY, JSON, STORE, name_of
from batchscore.observe.text import plain

if TYPE_CHECKING:
    from batchscore.store import Reader

QUEUE = click.option("--queue", "queue", metavar="QUEUE", required=True, help="The review queue.")
SCOPE = click.argument("scope", type=click.Choice(["account", "domain", "segment"]))


@click.group()
def suppress() -> None:
    """Keep accounts from being flagged in a queue for a while. They are scored and recorded as ever; the past is not changed."""


@suppress.command()
@SCOPE
@click.argument("key")
@click.option("--until", metavar="WHEN", required=True, help="A date, or a duration from now such as 30d.")
@click.option("--owner", metavar="NAME", required=True, help="Who answers for it, and is asked when it ends.")
@click.option("--why", metavar="TEXT", required=True, help="The reason.")
@BY
@STORE
@QUEUE
@JSON
def add(  # noqa: PLR0913 (a command's options are its arguments)
    scope: Any, key: str, *, until: str, owner: str, why: str, by: str, store: Path, queue: str, as_json: bool
) -> int:
    """Begin one now: of an account by its id, of a domain, or of a value of the segment that a spec names."""
    from batchscore.ports import Suppression
    from batchscore.store import open_desk, open_reader

    who, reader = name_of(by), open_reader(store)
    begins, ends = datetime.now(UTC), _until(until)
    if ends <= begins:
        raise click.BadParameter("it ends after now", param_hint="--until")
    for text, option, most in ((owner, "--owner", 255), (why, "--why", 2_000), (key, "KEY", 255)):
        if not text.strip() or len(text) > most or not text.isprintable():
            raise click.BadParameter(f"1 to {most:,} characters, on one line", param_hint=option)
    key = _key(scope, key, reader)
    asked = Suppression(scope=scope, key=key, owner=owner.strip(), why=why.strip(), begins_at=begins, until=ends)
    try:
        made = open_desk(store).suppress(queue, asked, by=who)
    except ValueError as mistake:  # it ended between our clock and the database's
        raise click.BadParameter(str(mistake), param_hint="--until") from None
    _warn_of_unknown(reader, queue)
    if as_json:
        click.echo(made.model_dump_json(indent=2))
        return 0
    click.echo(plain(f"{scope} is not flagged in {queue} until {made.until:%Y-%m-%d %H:%M} UTC"))
    return 0


@suppress.command("list")
@click.option("--all", "ended_too", is_flag=True, help="Those that have ended too.")
@STORE
@QUEUE
@JSON
def list_(*, ended_too: bool, store: Path, queue: str, as_json: bool) -> int:
    """Show what holds, and until when."""
    from batchscore.cli.outputs import SuppressionsShown
    from batchscore.store import open_reader

    now, reader = datetime.now(UTC), open_reader(store)
    found = tuple(one for one in reader.suppressions(queue) if ended_too or one.until > now)
    _warn_of_unknown(reader, queue)
    if as_json:
        click.echo(SuppressionsShown(queue=queue, suppressions=found).model_dump_json(indent=2))
        return 0
    for one in found:
        click.echo(plain(f"{one.scope:<8} {one.key}  until {one.until:%Y-%m-%d %H:%M} UTC  {one.owner}: {one.why}"))
    click.echo(f"{len(found)} suppression(s)")
    return 0


@suppress.command()
@SCOPE
@click.argument("key")
@BY
@STORE
@QUEUE
@JSON
def remove(scope: str, key: str, *, by: str, store: Path, queue: str, as_json: bool) -> int:
    """End now what holds for that key; it stays on record that it did."""
    from batchscore.cli.outputs import Unsuppressed
    from batchscore.store import open_desk, open_reader

    who, reader = name_of(by), open_reader(store)
    _warn_of_unknown(reader, queue)
    n = open_desk(store).unsuppress(queue, scope, _key(scope, key, reader), by=who)
    if as_json:
        click.echo(Unsuppressed(queue=queue, n=n).model_dump_json(indent=2))
        return 0
    click.echo(f"{n} suppression(s) ended")
    return 0


def _key(scope: str, key: str, reader: Reader) -> str:
    """The key as the store has it: an account's however it is written."""
    from batchscore.review.account_ids import account_id_from

    if scope != "account":
        return key
    try:
        return str(account_id_from(key, reader.id_kind()))
    except ValueError as mistake:
        raise click.BadParameter(str(mistake), param_hint="KEY") from None


def _warn_of_unknown(reader: Reader, queue: str) -> None:
    """Nothing was released into that queue: rightly so before its first run, but a name is easily misspelt."""
    if queue not in (names := reader.queue_names()):
        known = ", ".join(map(plain, names)) or "none yet"
        click.echo(f"warning: no run has released into queue {plain(queue)}; there is {known}", err=True)


def _until(text: str) -> datetime:
    from batchscore.values import parse_duration, parse_moment

    try:
        return datetime.now(UTC) + parse_duration(text)
    except ValueError:
        pass
    try:
        return parse_moment(text)
    except ValueError as mistake:
        raise click.BadParameter(f"{mistake}, or a duration such as 30d", param_hint="--until") from None
