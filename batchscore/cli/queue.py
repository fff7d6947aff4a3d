"""queue: the reviewer's verbs. Looking needs no name; whatever changes a flag is done --by somebody, and stays on record."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from batchscore.cli.options import BY, JSON, LARGEST_NUMBER, STORE, name_of
from batchscore.desk import Wanted
from batchscore.flag import Disposition, FlagState
from batchscore.observe.text import plain, shown_id

if TYPE_CHECKING:
    from pydantic import BaseModel

    from batchscore.desk import Reviewed
    from batchscore.flag import AccountId
    from batchscore.store import Reader

QUEUE = click.option("--queue", "name", metavar="QUEUE", help="The review queue; may be left out where a store has one.")
FILTERS = (
    click.option(
        "--state",
        "states",
        type=click.Choice([state.value for state in FlagState]),
        multiple=True,
        help="Flags in that state.  [default: standing]",
    ),
    click.option("--group", metavar="KEY", help="Flags of that group (a campaign)."),
    click.option("--claimed-by", metavar="NAME", help="Flags that NAME has claimed."),
    click.option("--reason", metavar="CODE", help="Flags with that reason."),
    click.option("--run", "run_id", metavar="RUN", help="Flags of that run."),
)


def filtered(command: Any) -> Any:
    """The options that choose flags."""
    for option in reversed(FILTERS):
        command = option(command)
    return command


@click.group(invoke_without_command=True)
@STORE
@QUEUE
@click.option("-n", "limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many flags.")
@JSON
@click.pass_context
def queue(ctx: click.Context, store: Path, name: str | None, limit: int, *, as_json: bool) -> int:
    """Show the flags before the reviewers, best first, with their reasons; or do what a reviewer does with them."""
    if ctx.invoked_subcommand is None:
        return _list(store, Wanted(queue=name), limit, as_json=as_json)
    if any(ctx.get_parameter_source(option) is ParameterSource.COMMANDLINE for option in ctx.params):
        raise click.UsageError(f"options of `queue {ctx.invoked_subcommand}` stand after its name")
    return 0


@queue.command("list")
@STORE
@QUEUE
@filtered
@click.option("-n", "limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many flags.")
@JSON
def list_(store: Path, name: str | None, limit: int, *, as_json: bool, **chosen: Any) -> int:
    """Show flags, best first: those that stand, or by state, group, claimant, reason or run."""
    return _list(store, Wanted(queue=name, **_states(chosen)), limit, as_json=as_json)


@queue.command()
@click.argument("account")
@STORE
@QUEUE
@JSON
def show(account: str, *, store: Path, name: str | None, as_json: bool) -> int:
    """Show all that is known of ACCOUNT in a queue: flags, each version of their evidence and what moved, decisions, events."""
    from batchscore.cli.outputs import StoryShown
    from batchscore.store import open_reader

    reader = open_reader(store)
    queue_name, account_id = _queue(reader, name), _account(reader, account)
    flags = reader.account_flags(queue_name, account_id)
    if not flags:
        _refuse_unknown(queue_name, store)
    story = StoryShown(flags=flags, events=reader.account_events(queue_name, account_id))
    if as_json:
        return _said(story)
    from rich.console import Console

    from batchscore.observe.queue import show_story

    show_story(story.flags, story.events, Console())
    return 0


@queue.command()
@click.argument("accounts", metavar="[ACCOUNT]…", nargs=-1)
@BY
@click.option("-n", "n", type=click.IntRange(1, 1_000), default=1, show_default=True, help="How many, the best that are free.")
@click.option("--for", "for_", metavar="DURATION", default="4h", show_default=True, help="A claim not used by then comes back.")
@click.option("--group", metavar="KEY", help="Of that group (a campaign) alone.")
@STORE
@QUEUE
@JSON
def claim(  # noqa: PLR0913 (a command's options are its arguments)
    accounts: Sequence[str], *, by: str, n: int, for_: str, group: str | None, store: Path, name: str | None, as_json: bool
) -> int:
    """Take the best free flags, or those of the ACCOUNTs: yours until you decide, give them back, or time is up."""
    from batchscore.cli.outputs import QueueShown
    from batchscore.store import open_desk, open_reader

    reader = open_reader(store)
    only = [_account(reader, account) for account in accounts] or None
    got = open_desk(store).claim(_queue(reader, name), by=name_of(by), for_=_duration(for_, "--for"), n=n, group=group, only=only)
    if as_json:
        return _said(QueueShown(flags=got))
    _show(got, "nothing is free: queue list --state claimed shows who is at what")
    return 0


@queue.command("release-claim")
@click.argument("accounts", metavar="[ACCOUNT]…", nargs=-1)
@BY
@STORE
@QUEUE
@JSON
def release_claim(accounts: Sequence[str], *, by: str, store: Path, name: str | None, as_json: bool) -> int:
    """Give back what you have claimed: all of it, or the flags of the ACCOUNTs."""
    from batchscore.cli.outputs import ClaimsReturned
    from batchscore.store import open_desk, open_reader

    reader = open_reader(store)
    only = [_account(reader, account) for account in accounts] or None
    given = open_desk(store).return_claims(_queue(reader, name), by=name_of(by), only=only)
    if as_json:
        return _said(ClaimsReturned(accounts=given))
    click.echo(f"{len(given)} claim(s) given back")
    return 0


@queue.command()
@click.argument("account")
@click.argument("disposition", type=click.Choice([word.value for word in Disposition]))
@click.option("--saw", type=click.IntRange(min=1), required=True, help="The version of the evidence that you saw (queue show).")
@click.option("--run", "run_id", metavar="RUN", help="Of the flag of that run.  [default: the one that stands, else the newest]")
@BY
@click.option("--why", default="", metavar="TEXT", help="Kept with the decision: no name of a person.")
@click.option("--correct", is_flag=True, help="It was decided already, and you know better: both decisions stay on record.")
@STORE
@QUEUE
@JSON
def decide(  # noqa: PLR0913 (a command's options are its arguments)
    account: str, disposition: str, *, saw: int, run_id: str | None, by: str, why: str, correct: bool, store: Path,
    name: str | None, as_json: bool,
) -> int:  # fmt: skip
    """Decide on the flag of ACCOUNT. Refused, with what changed, if it is not what you saw."""
    from batchscore.cli.outputs import StoryShown
    from batchscore.desk import Opinion
    from batchscore.store import open_desk, open_reader

    reader = open_reader(store)
    queue_name, account_id = _queue(reader, name), _account(reader, account)
    said = Opinion(
        queue=queue_name,
        account_id=account_id,
        disposition=Disposition(disposition),
        by=name_of(by),
        evidence=saw,
        run_id=run_id,
        why=why.strip(),
        correct=correct,
    )
    open_desk(store).decide([said])
    flags = reader.account_flags(queue_name, account_id)
    if as_json:
        return _said(StoryShown(flags=flags, events=reader.account_events(queue_name, account_id)))
    decided = max((flag for flag in flags if flag.decided), key=lambda flag: flag.decided[-1].decided_at)
    click.echo(f"account {shown_id(account_id)}: {decided.state}")
    return 0


@queue.command("import")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--url", metavar="NAME", help="Instead of a file: a table or view of the database of that name.")
@click.option("--table", metavar="TABLE", help="With --url: the table or view.")
@click.option("--by", metavar="NAME", help="Who decided, where a row has no reviewer.")
@click.option("--seen", is_flag=True, help="Demand of each row the version of the evidence that the person saw.")
@click.option("--check", is_flag=True, help="Only tell what is wrong with it.")
@STORE
@QUEUE
@JSON
def import_(  # noqa: PLR0913 (a command's options are its arguments)
    file: Path | None, *, url: str | None, table: str | None, by: str | None, seen: bool, check: bool, store: Path,
    name: str | None, as_json: bool,
) -> int:  # fmt: skip
    """Record the decisions of FILE (CSV or Parquet), or of a table: all that stand, or none; each mistake is told with its row.

    Columns account_id and disposition; also reviewer, evidence, decided_at, queue, run_id, why. The same rows may come again.
    """
    from batchscore.review.deciding import take
    from batchscore.review.decision_rows import Given, read_opinions, rows_of_database, rows_of_file
    from batchscore.store import open_reader

    if (file is None) == (url is None) or (url is None) != (table is None):
        raise click.UsageError("name a FILE, or --url NAME with --table TABLE")
    reader = open_reader(store)
    given = Given(
        kind=reader.id_kind(),
        queue=name or _only_queue(reader),
        by=None if by is None else name_of(by),
        evidence_needed=seen,
    )
    where = str(file) if file is not None else f"{url}, table {table}"
    rows = rows_of_file(file) if file is not None else rows_of_database(str(url), str(table))
    decisions, numbers = read_opinions(rows, given, where)
    done = take(store, decisions, numbers, where, check=check, source="import")
    if as_json:
        return _said(done)
    what = "stand; nothing was taken, as asked" if check else f"read, {done.n_new:,} of them new"
    click.echo(f"{done.n_read:,} decision(s) {what}")
    return 0


@queue.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The new file, .csv or Parquet.")
@STORE
@QUEUE
@filtered
@JSON
def export(out: Path, *, store: Path, name: str | None, as_json: bool, **chosen: Any) -> int:
    """Write flags to a file, a row each. With its column disposition filled in, `queue import --seen` takes it."""
    from batchscore.cli.outputs import Exported
    from batchscore.review.exported import export as write
    from batchscore.store import open_reader

    reader = open_reader(store)
    n = write(reader.all_reviewed(Wanted(queue=name, **_states(chosen))), reader.id_kind(), out)
    if as_json:
        return _said(Exported(path=str(out), n_rows=n))
    click.echo(plain(f"{out}: {n:,} flag(s)"))
    return 0


@queue.command()
@click.option("--older-than", metavar="DURATION", required=True, help="Since the newest evidence came, such as 30d.")
@BY
@click.option("--apply", is_flag=True, help="Do it.  [default: only count]")
@STORE
@QUEUE
@JSON
def expire(older_than: str, *, by: str, apply: bool, store: Path, name: str | None, as_json: bool) -> int:
    """Take from the queue the flags that nobody took for so long since their newest evidence came.

    A run appends no evidence for an account whose flag stood when it decided: such a flag expires however high it scores now.
    """
    from batchscore.cli.outputs import Expired
    from batchscore.store import open_desk, open_reader

    queue_name = _queue(open_reader(store), name)
    age = _duration(older_than, "--older-than")
    n = open_desk(store).expire(queue_name, by=name_of(by), older_than=age, apply=apply)
    if as_json:
        return _said(Expired(queue=queue_name, n=n, applied=apply))
    click.echo(f"{n:,} flag(s) {'expired' if apply else 'would expire: --apply does it'}")
    return 0


@queue.command()
@click.option(
    "--after", type=click.IntRange(0, LARGEST_NUMBER), default=0, show_default=True, help="The last number that you have handled."
)
@click.option("-n", "limit", type=click.IntRange(1, 100_000), default=1_000, show_default=True, help="How many at most.")
@STORE
@JSON
def events(after: int, *, limit: int, store: Path, as_json: bool) -> int:
    """Show what changed, in order: each flag, claim and decision has a number. Keep the last one, and ask for those after it."""
    from batchscore.cli.outputs import EventsShown
    from batchscore.store import open_reader

    found = open_reader(store).events(after, limit=limit)
    if as_json:
        return _said(EventsShown(events=found, last=found[-1].number if found else after))
    for event in found:
        said = f"{event.number:>8}  {event.at:%Y-%m-%d %H:%M:%S} UTC  {event.act:<9}  {event.queue}"
        click.echo(plain(f"{said}  account {shown_id(event.account_id)}  {event.run_id}  {event.who}"))
    return 0


def _list(store: Path, wanted: Wanted, limit: int, *, as_json: bool) -> int:
    from batchscore.cli.outputs import QueueShown
    from batchscore.store import open_reader

    flags = open_reader(store).reviewed(wanted, limit=limit)
    if as_json:
        return _said(QueueShown(flags=flags))
    _show(flags, "the queue is empty")
    return 0


def _show(flags: Sequence[Reviewed], otherwise: str) -> None:
    from rich.console import Console

    from batchscore.observe.queue import show_queue

    show_queue(flags, Console())
    if not flags:
        click.echo(otherwise)


def _said(document: BaseModel) -> int:
    click.echo(document.model_dump_json(indent=2))
    return 0


def _states(chosen: dict[str, Any]) -> dict[str, Any]:
    return {**chosen, "states": tuple(map(FlagState, chosen["states"]))}


def _account(reader: Reader, text: str) -> AccountId:
    from batchscore.review.account_ids import account_id_from

    try:
        return account_id_from(text, reader.id_kind())
    except ValueError as mistake:
        raise click.BadParameter(str(mistake), param_hint="ACCOUNT") from None


def _only_queue(reader: Reader) -> str | None:
    names = reader.queue_names()
    return names[0] if len(names) == 1 else None


def _queue(reader: Reader, name: str | None) -> str:
    names = reader.queue_names()
    if name is None and len(names) == 1:
        return names[0]
    if name is None or name not in names:
        known = ", ".join(map(plain, names)) or "none yet: no run has released a flag"
        raise click.UsageError(f"which queue? --queue NAME; there is {known}")
    return name


def _refuse_unknown(queue_name: str, store: Path) -> None:
    from batchscore.command import whole_command
    from batchscore.errors import Refused

    raise Refused(
        "flag_absent",
        "no run ever put that account before the reviewers",
        where=f"queue {queue_name}",
        remedy=f"check the account id and the queue: {whole_command('queue list', store)}",
    )


def _duration(text: str, hint: str) -> timedelta:
    from batchscore.values import parse_duration

    try:
        return parse_duration(text)
    except ValueError as mistake:
        raise click.BadParameter(str(mistake), param_hint=hint) from None
