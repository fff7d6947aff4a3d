"""The demo: prepares a world, trains a model on its past, and runs the real commands' code on it, telling what happens."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console

from batchscore.demo import real_mail, world
from batchscore.demo.training import train_bundle
from batchscore.errors import Refused
from batchscore.features.feature_set import FeatureSet
from batchscore.files import verified
from batchscore.layout import Definitions
from batchscore.observe.progress import ProgressObserver
from batchscore.observe.terminal import show_plan, show_proof, show_queue
from batchscore.observe.text import plain
from batchscore.pipeline import run
from batchscore.plan import Plan, Stage
from batchscore.planner import make_plan
from batchscore.ports import Executor, RunRow
from batchscore.proving import prove_run
from batchscore.spec import RunSpec, read_spec
from batchscore.store import open_reader, open_store

MARKER: Final = ".batchscore-demo"
URL_VARIABLE: Final = "BATCHSCORE_URL_DEMO"
SHOWN_FLAGS: Final = 5

OpenExecutor = Callable[[], AbstractContextManager[Executor]]


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """Which world: the real mail, or a simulated one of ``accounts`` × ``days`` from ``seed``."""

    accounts: int | None = None
    days: int = 60
    seed: int = 1

    def name(self) -> str:
        """What tells this world from others; kept in the folder's marker."""
        return "real mail" if self.accounts is None else f"simulated {self.accounts} accounts, {self.days} days, seed {self.seed}"

    def write(self, folder: Path) -> None:
        """Lay the world out in ``folder``."""
        if self.accounts is None:
            real_mail.lay_out_real_mail(folder)
        else:
            world.write_world(folder, accounts=self.accounts, days=self.days, seed=self.seed)

    def trained_as_of(self) -> datetime:
        """The date up to which the model may look."""
        return real_mail.TRAINED_AS_OF if self.accounts is None else world.trained_as_of(self.days)


def tell(chosen: World, folder: Path, *, executor: OpenExecutor, again: bool, console: Console) -> int:
    """Prepare, train, plan, run and show. The exit code."""
    folder = folder.absolute()
    _prepare(chosen, folder, console)
    spec = read_spec(folder / "spec.yaml")
    if not Path(spec.bundles[0]).exists():
        console.print(f"training a model on what was known before {chosen.trained_as_of():%Y-%m-%d}", highlight=False)
        train_bundle(spec, folder / "truth.parquet", chosen.trained_as_of())
    plan = make_plan(spec)
    show_plan(plan, console)
    row = _run(plan, executor, console, again=again)
    _show(row, spec, folder, console)
    if chosen.accounts is None:
        console.print(f"\n{real_mail.CAVEAT}", highlight=False, style="italic")
    _show_next(row, folder, console)
    return 0


def _prepare(chosen: World, folder: Path, console: Console) -> None:
    """Write the world once; a folder that holds anything else is left alone."""
    marker = folder / MARKER
    os.environ[URL_VARIABLE] = f"sqlite:///{folder / 'accounts.db'}"
    if marker.is_file() and marker.read_text(encoding="utf-8") == chosen.name():
        console.print(f"{chosen.name()}: already in {plain(str(folder))}", highlight=False)
        return
    if folder.exists() and any(folder.iterdir()):
        raise Refused("path_escapes_root", "the demo's folder holds something else", where=str(folder),
                      remedy="name an empty or new one: --folder demo-2")  # fmt: skip
    console.print(f"writing {chosen.name()} to {plain(str(folder))}", highlight=False)
    chosen.write(folder)
    marker.write_text(chosen.name(), encoding="utf-8")


def _run(plan: Plan, executor: OpenExecutor, console: Console, *, again: bool) -> RunRow:
    store = open_store(Path(plan.spec.store), FeatureSet.thaw(plan.feature_set).account_id)
    console.print()
    with executor() as opened, ProgressObserver(console) as observer:
        console.print(f"running on {opened.describe()}", highlight=False)
        return run(plan, executor=opened, store=store, observer=observer, again=again)


def _show(row: RunRow, spec: RunSpec, folder: Path, console: Console) -> None:
    reader = open_reader(Path(spec.store))
    console.print()
    show_proof(prove_run(row.plan, Definitions.of(row.plan), reader, row.run_id), console)
    console.print(
        f"\nthe queue {spec.policy.queue!r}, best {SHOWN_FLAGS} of {len(reader.queue(spec.policy.queue, limit=1_000_000))}:",
        highlight=False,
    )
    show_queue(reader.queue(spec.policy.queue, limit=SHOWN_FLAGS), console)
    assert row.decision is not None
    decided = pq.read_table(verified(row.decision.path, row.decision.sha256))
    truth = pq.read_table(folder / "truth.parquet")
    console.print(
        "\nprecision of the flags, beside the base rate of all accounts scored (a coin would do as well as the base rate):",
        highlight=False,
    )
    for as_of in spec.as_ofs():
        flags = decided.filter(pc.equal(decided["as_of"], pa.scalar(as_of, decided["as_of"].type)))
        hits, flagged = _hits(flags["account_id"], truth)
        found, scored = _hits(_scored(spec, row, as_of), truth)
        released = "  ← released" if len(flags) and flags["release"][0].as_py() else ""
        precision = f"{hits / flagged:.0%}" if flagged else "–"
        console.print(
            f"  {as_of:%Y-%m-%d}  {hits:>4} of {flagged:>4} flags right, {precision:>4}; "
            f"base rate {found / max(1, scored):.0%}{released}",
            highlight=False,
        )


def _scored(spec: RunSpec, row: RunRow, as_of: datetime) -> pa.ChunkedArray:
    """Ids of the accounts scored at one as-of."""
    store = Path(spec.store)
    tables = [
        pq.read_table(
            store / output.path, columns=["account_id"], filters=[("as_of", "=", pa.scalar(as_of, pa.timestamp("us", "UTC")))]
        )
        for receipt in open_reader(store).receipts(row.run_id, Stage.SCORE)
        for output in receipt.outputs
        if output.role == "scores"
    ]
    return pa.concat_tables(tables)["account_id"]


def _hits(ids: pa.ChunkedArray, truth: pa.Table) -> tuple[int, int]:
    """How many of ``ids`` the truth calls abuse, and how many there are."""
    abusive = truth.filter(truth["is_abuse"])["account_id"].combine_chunks().cast(ids.type)
    return int(pc.sum(pc.is_in(ids, value_set=abusive)).as_py() or 0), len(ids)


def _show_next(row: RunRow, folder: Path, console: Console) -> None:
    store = plain(row.plan.spec.store)
    reads_sql = any(source.sql is not None for source in row.plan.spec.sources.values())
    lines = [f"export {URL_VARIABLE}={plain(os.environ[URL_VARIABLE])}"] if reads_sql else []
    lines += [
        f"batchscore status {row.run_id} --store {store}",
        f"batchscore queue --store {store} -n 25",
        f"batchscore plan {plain(str(folder / 'spec.yaml'))}",
        f"batchscore run {plain(str(folder / 'spec.yaml'))} --again    # the next generation: everything is reused",
    ]
    console.print("\nnext, try:", highlight=False)
    for line in lines:
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
