"""The demo: prepares a world, trains a model on its past, and runs the real commands' code on it, telling what happens."""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from rich.console import Console

from batchscore.demo import real_mail, world
from batchscore.demo.mysql_server import server_programs
from batchscore.demo.on_mysql import on_mysql, write_spec
from batchscore.demo.place import fill, holds
from batchscore.demo.results import say, show_next, show_results
from batchscore.demo.training import train_bundle
from batchscore.demo.truth import Truth
from batchscore.dispatch.limits import Limits
from batchscore.errors import QUARANTINED, Refused
from batchscore.features.feature_set import FeatureSet
from batchscore.observe.progress import ProgressObserver
from batchscore.observe.terminal import show_plan
from batchscore.pipeline import run
from batchscore.plan import Plan
from batchscore.planner import make_plan
from batchscore.ports import Executor, RunRow
from batchscore.spec import RunSpec, read_spec
from batchscore.store import open_reader, open_store

URL_VARIABLE: Final = "BATCHSCORE_URL_DEMO"


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """Which world: the real mail, or a simulated one of ``accounts`` × ``days`` from ``seed``."""

    accounts: int | None = None
    days: int = 60
    seed: int = 1
    on_mysql: bool = False  # accounts, mails, runs and queue

    @property
    def name(self) -> str:
        """What tells this world from others; kept in the folder's marker."""
        of_what = (
            "real mail" if self.accounts is None else f"simulated {self.accounts} accounts, {self.days} days, seed {self.seed}"
        )
        return f"{of_what}, on MySQL" if self.on_mysql else of_what

    def write(self, folder: Path) -> None:
        """Lay the world out in ``folder``."""
        if self.accounts is None:
            real_mail.lay_out_real_mail(folder)
        else:
            world.write_world(folder, accounts=self.accounts, days=self.days, seed=self.seed)
        if self.on_mysql:
            write_spec(folder)

    @property
    def trained_as_of(self) -> datetime:
        """The date up to which the model may look."""
        return real_mail.TRAINED_AS_OF if self.accounts is None else world.trained_as_of(self.days)

    @property
    def caveat(self) -> str:
        """What the precision does not say."""
        return real_mail.CAVEAT if self.accounts is None else world.CAVEAT


@dataclass(frozen=True, kw_only=True, slots=True)
class HowToRun:
    """Where attempts run, what asks for a stop, and whether a finished run is to be run again. Both are opened only to run.

    ``at_end`` is told of the run while its store can be read.
    """

    executor: Callable[[], AbstractContextManager[Executor]]
    stop: Callable[[], AbstractContextManager[threading.Event]]
    again: bool = False
    at_end: Callable[[RunRow], object] = lambda _row: None


def tell(chosen: World, folder: Path, how: HowToRun, console: Console) -> int:
    """Prepare, train, plan, run and show. The exit code.

    Raises:
        Refused: the folder holds something else; also whatever `make_plan` and `run` raise.
    """
    folder = folder.absolute()
    if chosen.on_mysql:
        server_programs()  # refuses before anything is written
    _prepare(chosen, folder, console)
    with on_mysql(folder, console) if chosen.on_mysql else nullcontext(_on_files(chosen, folder)) as first:
        return _tell(chosen, folder, how, first, console)


def _on_files(chosen: World, folder: Path) -> tuple[str, ...]:
    """Commands to type before others; the real mail's accounts lie in SQLite, under the name that the spec gives them."""
    url = f"sqlite:///{folder / real_mail.DATABASE}"
    os.environ[URL_VARIABLE] = url
    return (f"export {URL_VARIABLE}={shlex.quote(url)}",) if chosen.accounts is None else ()


def _tell(chosen: World, folder: Path, how: HowToRun, first: Sequence[str], console: Console) -> int:
    spec, truth = read_spec(folder / "spec.yaml"), Truth(folder / "truth.parquet")
    _train(chosen, spec, truth, console)
    plan = make_plan(spec)
    show_plan(plan, console)
    row = _run(plan, how, console)
    reader = open_reader(Path(spec.store))
    show_results(row, reader, truth, chosen.trained_as_of, console)
    console.print(f"\n{chosen.caveat}", highlight=False, style="italic")
    show_next(row, folder / "spec.yaml", first, console)
    aside = reader.quarantined(row.run_id)
    for partition in aside:
        say(console, f"quarantined: {partition.stage} {partition.number}: {partition.message}")
    how.at_end(row)
    return QUARANTINED if aside else 0


def _prepare(chosen: World, folder: Path, console: Console) -> None:
    """Write the world once; a folder that holds anything else is left alone."""
    held = holds(folder)
    if held == chosen.name:
        say(console, f"{chosen.name}: already in {folder}")
    elif held == "":
        say(console, f"writing {chosen.name} to {folder}")
        fill(folder, chosen.name, chosen.write)
    else:
        raise Refused(
            "path_escapes_root",
            f"the demo's folder holds {'another world: ' + held if held else 'something else'}",
            where=str(folder),
            remedy="name an empty or new one: --folder demo-2",
        )


def _train(chosen: World, spec: RunSpec, truth: Truth, console: Console) -> None:
    if not Path(spec.bundles[0].path).exists():
        say(console, f"training a model on what was known before {chosen.trained_as_of:%Y-%m-%d}")
        train_bundle(spec, truth, chosen.trained_as_of)


def _run(plan: Plan, how: HowToRun, console: Console) -> RunRow:
    """Run the plan, or find it finished: then no worker is started."""
    store = open_store(Path(plan.spec.store), FeatureSet.thaw(plan.feature_set).account_id)
    say(console)
    runs = store.reader().runs_of_plan(plan.digest)
    if runs and runs[0].state == "finished" and not how.again:
        say(console, f"run {runs[0].run_id} of this plan is finished; --again runs its next generation")
        return runs[0]
    with how.stop() as stop, how.executor() as opened, ProgressObserver(console) as observer:
        say(console, f"running on {opened.describe()}")
        return run(plan, executor=opened, store=store, observer=observer, again=how.again, limits=Limits(stop=stop))
