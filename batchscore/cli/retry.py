"""What a run set aside: shown (for `status`), exported (`rejects`), and done once more after a fix (`retry`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchscore.cli.options import JSON, RUN, STORE
from batchscore.cli.walking import Terms, executor_options, run_plan, tell_end
from batchscore.command import command
from batchscore.observe.text import plain

if TYPE_CHECKING:
    from batchscore.cli.walking import OpenExecutor
    from batchscore.operations.retry import Retry, SetAside
    from batchscore.plan import Plan
    from batchscore.ports import RunRow, StoreReader


@click.command()
@RUN
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new file: FILE.parquet or FILE.csv.")
@STORE
@JSON
def rejects(run_id: str, out: Path, store: Path, *, as_json: bool) -> int:
    """Write what RUN rejected to a file: rows of sources by file and row number, scores by account and as-of."""
    from batchscore.operations.rejects import export_rejects
    from batchscore.store import open_reader

    reader = open_reader(store)
    n = export_rejects(reader.run(run_id), reader, out)
    if as_json:
        from batchscore.cli.outputs import Exported

        click.echo(Exported(path=str(out), n_rows=n).model_dump_json(indent=2))
    else:
        click.echo(f"{n:,} reject(s) written to {plain(str(out))}")
    return 0


@click.command()
@RUN
@click.option("--quarantined", "asked", flag_value="quarantined", help="What was set aside whole: partitions.")
@click.option("--rejected", "asked", flag_value="rejected", help="What was set aside by row, after its source was mended.")
@click.option("--apply", is_flag=True, help="Do it.  [default: only show]")
@JSON
@STORE
@executor_options
def retry(  # noqa: PLR0913 (a command's options are its arguments)
    run_id: str,
    *,
    asked: SetAside | None,
    apply: bool,
    as_json: bool,
    store: Path,
    executor: OpenExecutor,
    terms: Terms,
) -> int:
    """Show what is done again after a fix and what is reused, and do it with --apply. What RUN released stays as it is."""
    from batchscore.operations.retry import plan_retry
    from batchscore.planner import make_plan
    from batchscore.store import open_reader

    if asked is None or (apply and as_json):
        msg = "say --quarantined or --rejected" if asked is None else "--apply and --json exclude each other"
        raise click.UsageError(msg)
    reader = open_reader(store)
    row = reader.run(run_id)
    made = make_plan(row.plan.spec)
    found = plan_retry(row, made, reader, asked)
    if as_json:
        click.echo(found.model_dump_json(indent=2))
        return 0
    _tell(found)
    if row.undo_begun_at is not None:
        click.echo(f"{run_id} was undone: what was taken back is before the reviewers again once this is done")
    if not apply:
        click.echo(plain(f"nothing was done; to do it: {command('retry', row.run_id, store, f'--{asked} --apply')}"))
        return 0
    _keep_sweep(row, made, reader)
    again = not found.changed  # a new plan that was retried already is reported, not run a second time
    done = run_plan(made, again=again, executor=executor(), terms=terms)
    return tell_end(done, as_json=False)


def show_rejected(run_id: str, store: Path, *, as_json: bool) -> None:
    """Rejects of a run by table, file and code, and the first rows: no id, no value."""
    from batchscore.operations.rejects import rejected
    from batchscore.store import open_reader

    reader = open_reader(store)
    found = rejected(reader.run(run_id), reader)
    if as_json:
        click.echo(found.model_dump_json(indent=2))
        return
    click.echo(f"{run_id}: {found.n:,} rejected")
    for count in found.counts:
        where = count.file if count.file is not None else f"as of {count.as_of:%Y-%m-%d}"
        click.echo(plain(f"{count.n:>8,}  {count.table}  {where}  {count.code}: {count.means}"))
    if found.first:
        click.echo("first rows (counted from 0 in their file):")
    for row in found.first:
        click.echo(plain(f"  {row.file} row {row.row}: {row.code}"))
    if found.n:
        click.echo(plain(f"all of them: {command('rejects', run_id, store, '--out rejects.csv')}"))
        click.echo(plain(f"mend the source, then: {command('retry', run_id, store, '--rejected')}"))


def show_quarantined(run_id: str, store: Path, *, as_json: bool) -> None:
    """Partitions that a run set aside, and why."""
    from batchscore.operations.retry import Quarantined
    from batchscore.store import open_reader

    reader = open_reader(store)
    found = Quarantined(run_id=reader.run(run_id).run_id, partitions=reader.quarantined(run_id))
    if as_json:
        click.echo(found.model_dump_json(indent=2))
        return
    click.echo(f"{run_id}: {len(found.partitions)} partition(s) quarantined")
    for partition in found.partitions:
        click.echo(plain(f"  {partition.stage} {partition.number}: {partition.message}"))
    if found.partitions:
        click.echo(plain(f"mend the cause, then: {command('retry', run_id, store, '--quarantined')}"))


def _tell(found: Retry) -> None:
    if found.changed:
        click.echo(f"changed since {found.run_id} was planned: {plain(', '.join(found.changed))}")
        click.echo(f"so this is a new plan, {found.plan_digest[:12]}")
    else:
        click.echo(f"no pinned part has changed: the next generation of the plan of {found.run_id}")
    for stage in found.stages:
        why = f" ({stage.why})" if stage.why and stage.n_redone else ""
        redone = f"{stage.n_redone} partition(s) done again, about {stage.n_rows:,} rows"
        click.echo(f"{stage.stage:>8}  {redone}; {stage.n_reused} reused{why}")
    click.echo("  decide  anew; flags that stand from this run stay, and the same account is not flagged twice")


def _keep_sweep(row: RunRow, made: Plan, reader: StoreReader) -> None:
    """The retry of a sweep is a sweep of the same as-of, and must not release it over a newer one."""
    from batchscore.features.feature_set import FeatureSet
    from batchscore.operations.sweep import due, refuse_behind
    from batchscore.store import open_store

    sweeps = reader.sweeps(row.name)
    if any(sweep.plan_digest == row.plan_digest for sweep in sweeps):
        feature_set = FeatureSet.thaw(made.feature_set)
        refuse_behind(row.name, due(row.name, sweeps, row.plan.spec.as_ofs()[-1], feature_set.grain))
        open_store(Path(made.spec.store), feature_set.account_id).begin_sweep(made)
