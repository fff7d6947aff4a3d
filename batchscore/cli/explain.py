"""explain: why an account was flagged, or was not, with everything made again and compared to the bit."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchscore.cli.options import JSON, STORE
from batchscore.errors import DONE, HELD

if TYPE_CHECKING:
    from batchscore.flag import AccountId
    from batchscore.ports import RunRow
    from batchscore.store.reader import Reader

FROM_STDIN = "-"


@click.command()
@click.argument("flag", metavar="QUEUE/ACCOUNT | RUN")
@click.option("--account", metavar="ID", help="The account of RUN, flagged or not; - reads it from stdin.")
@click.option("--as-of", metavar="DATE", help="One of the run's.  [default: the newest that selected the account, else the last]")
@STORE
@JSON
def explain(flag: str, account: str | None, as_of: str | None, store: Path, *, as_json: bool) -> int:
    """Say why an account is in a queue, or what kept it out, and make all of it again from the frozen input.

    Name a flag by QUEUE/ACCOUNT, or any account of a run by RUN/ACCOUNT or RUN --account ID. An id on the command line stays
    in the shell's history and is seen in the list of processes: - in its place reads it from stdin.

    Shows the features in words, what each gave to the margin, what of the policy decided, and by digest the frozen rows, run,
    plan, bundle and policy. Ends with 4 when anything made again is not what it was, to the bit. Changes nothing.
    """
    from batchscore.operations.explain import explain_account
    from batchscore.store import open_reader

    moment = _moment(as_of)
    reader = open_reader(store)
    row, account_id, flagged_at = _named(reader, flag, account)
    found = explain_account(row, reader, account_id, moment or flagged_at)
    if as_json:
        click.echo(found.model_dump_json(indent=2))
    else:
        from rich.console import Console

        from batchscore.observe.explanation import show_explanation

        show_explanation(found, Console())
    return DONE if found.true else HELD


def _named(reader: Reader, named: str, account: str | None) -> tuple[RunRow, AccountId, datetime | None]:
    """The run, the account, and the as-of of the flag where one was named."""
    from batchscore.operations.explain import flag_named
    from batchscore.review.account_ids import account_id_from
    from batchscore.store.found_runs import RUN_ID

    place, slash, after = named.partition("/")
    if (account is None) != bool(slash):
        msg = "name an account once: QUEUE/ACCOUNT, RUN/ACCOUNT, or RUN --account ID (- reads the id from stdin)"
        raise click.UsageError(msg)
    text = after if account is None else account
    if text == FROM_STDIN:
        text = sys.stdin.readline().rstrip("\r\n")
    try:
        account_id = account_id_from(text, reader.id_kind())
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if RUN_ID.fullmatch(place) or account is not None:
        return reader.run(place), account_id, None
    flag = flag_named(reader, place, account_id).flag
    return reader.run(flag.run_id), flag.account_id, flag.as_of


def _moment(text: str | None) -> datetime | None:
    from batchscore.values import parse_moment

    if text is None:
        return None
    try:
        return parse_moment(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--as-of") from None
