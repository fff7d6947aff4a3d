"""undo, verify: what a run put before the reviewers is taken back; what it left is proven once more."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchscore.cli.options import JSON, RUN, STORE
from batchscore.command import command
from batchscore.errors import DONE, HELD
from batchscore.observe.text import plain, shown_id

if TYPE_CHECKING:
    from batchscore.ports import Undo

MAX_SHOWN = 20


@click.command()
@RUN
@click.option("--apply", is_flag=True, help="Do it.  [default: only show]")
@click.option("--why", metavar="TEXT", help="The reason, kept with the run: no name of an account. Needed with --apply.")
@STORE
@JSON
def undo(run_id: str, *, apply: bool, why: str | None, store: Path, as_json: bool) -> int:
    """Take RUN's flags back from the reviewers, as far as no person touched them; what they had superseded stands again.

    May be repeated: one that was cut goes on, one that is done is only told. To flag those accounts again, run something again.
    """
    from batchscore.driver import operator_name
    from batchscore.features.feature_set import FeatureSet
    from batchscore.store import open_reader, open_store

    reason = (why or "").strip()
    if apply and not reason:
        msg = "--apply needs --why TEXT: whoever finds the flags gone will ask"
        raise click.UsageError(msg)
    found = open_reader(store).undo(run_id)
    if apply:
        kind = FeatureSet.thaw(open_reader(store).run(run_id).plan.feature_set).account_id
        found = open_store(store, kind).undo(run_id, by=operator_name(), why=reason)
    if as_json:
        click.echo(found.model_dump_json(indent=2))
    else:
        _tell(found, store)
    return 0


@click.command()
@RUN
@STORE
@JSON
def verify(run_id: str, store: Path, *, as_json: bool) -> int:
    """Prove RUN once more from its files and rows: file digests, keys, decision, flags, audit trail. Changes nothing.

    Ends with 4 when anything is not as it was: a person must look. It reads every file of the run.
    """
    from batchscore.operations.verify import verify_run
    from batchscore.store import open_reader

    reader = open_reader(store)
    found = verify_run(reader.run(run_id), reader, store)
    if as_json:
        click.echo(found.model_dump_json(indent=2))
        return DONE if found.true else HELD
    for check in found.checks:
        truth = "FALSE" if check.n_untrue else "true"
        click.echo(f"{truth:<5}  {check.name:<8}  {check.n_looked_at:>9,}  {plain(check.says)}")
        for untrue in check.untrue:
            click.echo(plain(f"         {untrue}"))
        if check.n_untrue > len(check.untrue):
            click.echo(f"         and {check.n_untrue - len(check.untrue):,} more")
    click.echo(f"audit trail: entry {found.audit_number:,}, head {found.audit_head}")
    click.echo("compare it with the head that an earlier report printed: a cut tail that told of others is not found here")
    ends = "all of it is true" if found.true else "NOT AS IT WAS: look at what is FALSE before trusting its flags"
    click.echo(f"{run_id}: {ends}")
    return DONE if found.true else HELD


def _tell(found: Undo, store: Path) -> None:
    done = found.undone_at is not None
    if found.begun_at is not None:
        until = f"undone {found.undone_at:%Y-%m-%d %H:%M} UTC" if found.undone_at else "an undo was begun and has not ended"
        click.echo(plain(f"{found.run_id}: {until}, by {found.by}: {found.why}"))
    verb = "withdrawn" if done else "to withdraw"
    again = "standing again" if done else "to stand again"
    click.echo(f"{found.n_withdrawn:>8,} flag(s) {verb}: before the reviewers, and no person touched them")
    click.echo(f"{found.n_restored:>8,} flag(s) of other runs {again}, which those had superseded")
    click.echo(f"{found.n_overtaken:>8,} flag(s) left: never before the reviewers, others stood there or people kept them back")
    if found.n_evidence:
        click.echo(f"{found.n_evidence:>8,} of these: evidence on flags of other runs, withdrawn from it with the run")
    if found.n_turned:
        click.echo(
            f"{found.n_turned:>8,} piece(s) of evidence of later runs: what these say is new without the run's, or is no more"
        )
    click.echo(f"{len(found.left):>8,} flag(s) left: a person touched them")
    for flag in found.left[:MAX_SHOWN]:
        click.echo(plain(f"          {flag.queue}  account {shown_id(flag.account_id)}  {flag.state}"))
    if len(found.left) > MAX_SHOWN:
        click.echo(f"          and {len(found.left) - MAX_SHOWN:,} more: --json lists all")
    if not done:
        click.echo(plain(f"to do it: {command('undo', found.run_id, store, '--apply --why TEXT')}"))
