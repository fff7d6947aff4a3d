"""release: more of a run's flags, from what its decision kept in reserve."""

from __future__ import annotations

from pathlib import Path

import click

from batchscore.cli.options import JSON, RUN, STORE
from batchscore.command import command
from batchscore.observe.text import plain, shown_id


@click.command()
@RUN
@click.option("--count", type=click.IntRange(min=1), help="At most so many.  [default: all that the policy's per_day lets go]")
@click.option("--apply", is_flag=True, help="Do it.  [default: only show]")
@click.option("--withheld", is_flag=True, help="List who would have been flagged when the run decided, and why they were not.")
@STORE
@JSON
def release(run_id: str, *, count: int | None, apply: bool, withheld: bool, store: Path, as_json: bool) -> int:
    """Put more of RUN before the reviewers: the next of its reserve by rank, but for whom people decided on or suppressed since.

    Never more on a day (UTC) than the policy's `per_day`. An undo of the run takes them back, too.
    """
    from batchscore.driver import operator_name
    from batchscore.operations.release import release_reserve, would_have_been

    shown = release_reserve(store, run_id, count=count, apply=apply, by=operator_name())
    if withheld:
        shown = shown.model_copy(update={"would": would_have_been(store, run_id)})
    if as_json:
        click.echo(shown.model_dump_json(indent=2))
        return 0
    click.echo(f"reserve of {run_id} for the queue {plain(shown.queue)}: {shown.n_kept:,} kept, {shown.n_gone:,} gone")
    for name, held in (("withheld by now", shown.withheld), ("would have been flagged, was withheld", shown.never_flagged)):
        if held:
            click.echo(f"{name}: {', '.join(f'{n:,} {why}' for why, n in held.items())}")
    if shown.n_evidence:
        click.echo(f"{shown.n_evidence:,} added to flags that stand")
    for one in shown.would:
        click.echo(f"  {one.score:.4f}  account {shown_id(one.account_id)}  {plain(one.why)}")
    if apply:
        overtaken = f", {shown.n_overtaken:,} overtaken by a flag that stands" if shown.n_overtaken else ""
        click.echo(f"released {shown.n_released:,} more{overtaken}; {shown.n_later:,} may go later")
    elif shown.n_next:
        click.echo(f"{shown.n_next:,} may go now, the next at rank {shown.next_rank:,}; {shown.n_later:,} later")
        click.echo(plain(f"next: {command('release', run_id, store, '--apply')}"))
    else:
        click.echo(f"nothing may go now; {shown.n_later:,} later")
    return 0
