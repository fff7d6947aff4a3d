"""The kill programme: whole runs on a real cluster, hit again and again from a seed until so many kills came about.

What kills at once comes about when it is dealt; what is armed (a disk, a clock, a cut) when it is reached, which it need not be.

Every other run is on MySQL, through a proxy that cuts connections. Each must end equal to one that was left alone, with nothing
lost, nothing doubled, nobody blamed, and nothing shown to reviewers before its release. `make chaos` has 200; the suite 20.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from batchscore.errors import BatchscoreError
from batchscore.failpoints import Point
from batchscore.plan import Stage
from batchscore.store import open_reader
from batchscore.store.migrate import upgrade_database
from tests.chaos.cluster import WORKER_TTL_S, Cluster
from tests.chaos.driver import LEASE_S, drive
from tests.chaos.processes import Child
from tests.chaos.watcher import Watcher
from tests.mysql_proxy import FailingProxy, Fault
from tests.mysql_server import PrivateServer
from tests.run_digest import run_digest
from tests.small_world import SmallWorld

N_ACCOUNTS: Final = 1_500
PARTITION_ROWS: Final = 12  # some 120 score partitions
LOOK_S: Final = 0.05
RUN_S: Final = 240  # beyond that a run hangs
FILE_POINTS: Final = sum(point.startswith("file") for point in Point)
DAY_S: Final = 86_400
Fired = Callable[[], bool]  # whether what was armed came about
CUTS: Final[tuple[Fault, ...]] = ("cut before", "cut after", "silent before", "silent after")


@dataclass
class Tally:
    """What was dealt and fired, and what came of it. ``lost`` and ``doubled``: scores (account × as-of) of all runs together."""

    seed: int
    dealt: Counter[str] = field(default_factory=Counter)
    fired: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    equal: int = 0
    lost: int = 0
    doubled: int = 0
    quarantined: int = 0
    looks_at_the_queue: int = 0
    seconds: float = 0.0

    @property
    def n_kills(self) -> int:
        return self.fired.total()

    def blanks(self) -> list[str]:
        """Kinds that were dealt and never fired: of them nothing is shown."""
        return sorted(kind for kind in self.dealt if not self.fired[kind])

    def holds(self) -> bool:
        """Whether every run came out as if nothing had happened."""
        return self.equal == self.runs > 0 and self.lost == self.doubled == self.quarantined == 0

    def table(self) -> str:
        """For people."""
        lines = [f"{self.fired[kind]:>6,}  {kind} ({n:,} dealt)" for kind, n in sorted(self.dealt.items())]
        lines += [
            f"{self.n_kills:>6,}  kills in all ({self.dealt.total():,} dealt), seed {self.seed}, {self.seconds:,.0f} s",
            f"{self.runs:>6,}  runs of at least 100 partitions, {self.equal:,} of them equal",
            f"{self.lost:>6,}  scores lost, {self.doubled:,} doubled, {self.quarantined:,} partitions set aside",
            f"{self.looks_at_the_queue:>6,}  looks at the review queue, 50 a second: no flag of an unreleased run",
        ]
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """As ``build/chaos.json``."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fired = {kind: self.fired[kind] for kind in sorted(self.dealt)}
        said: dict[str, Any] = {**vars(self), "dealt": dict(sorted(self.dealt.items())), "fired": fired, "n_kills": self.n_kills}
        path.write_text(json.dumps(said, indent=2) + "\n")


class Programme:
    """Deals from ``seed`` until ``n_kills`` fired; `tally` is what came of it."""

    def __init__(self, world: SmallWorld, server: PrivateServer, undisturbed: Path, *, seed: int, n_kills: int) -> None:
        """``undisturbed``: a store with one finished run of the world, which nobody disturbed."""
        self.world, self.server, self._n_kills = world, server, n_kills
        self.chance = random.Random(seed)
        (row,) = open_reader(undisturbed).runs()
        self.digest, self.scored = run_digest(undisturbed, row.run_id), _scored(undisturbed, row.run_id)
        self.tally = Tally(seed=seed)

    def play(self, folder: Path) -> Tally:
        """Runs until all kills came about. Raises AssertionError where a run hangs, or ends otherwise."""
        began = time.monotonic()
        with Cluster(folder, self.chance) as cluster:
            while self.tally.n_kills < self._n_kills:
                self.tally.runs += 1
                on_mysql = self.tally.runs % 2 == 1
                _Run(self, cluster, f"chaos-{self.tally.runs}", on_mysql=on_mysql).play()
        self.tally.seconds = time.monotonic() - began
        return self.tally

    def left(self) -> int:
        """Kills still to come about."""
        return self._n_kills - self.tally.n_kills


class _Run:
    """One run from its first driver to its end, and all that happens to it."""

    def __init__(self, programme: Programme, cluster: Cluster, name: str, *, on_mysql: bool) -> None:
        self._programme, self._cluster = programme, cluster
        self._chance, self._tally, self._server = programme.chance, programme.tally, programme.server
        self._store = programme.world.folder / name
        self._proxy = FailingProxy(self._server.host, self._server.port) if on_mysql else None
        self._spec = programme.world.folder / f"{name}.yaml"
        self._environment = self._made()
        self._later: list[tuple[float, Callable[[], None]]] = []  # what a stopped one is woken by, and when
        self._zombies: list[Child] = []
        self._armed: list[tuple[str, Fired]] = []  # dealt, and not come about yet
        self._driver = self._drive()
        self._deals: dict[str, Callable[[], Fired | None]] = {
            "driver SIGKILL": self._kill_driver,
            "driver SIGSTOP past its lease": self._stop_driver,
            "worker SIGKILL": self._cluster.kill_worker,
            "worker SIGSTOP past its time to live": self._stop_worker,
            "scheduler SIGKILL": lambda: self._cluster.scheduler().kill(),
            "scheduler SIGSTOP": self._stop_scheduler,
            "disk full": lambda: self._sicken("full"),
            "disk I/O error": lambda: self._sicken("io"),
            "clock jump": self._jump,
        }
        if self._proxy is not None:
            self._deals |= {
                "database SIGKILL": self._kill_server,
                "database SIGSTOP": self._stop_server,
                "TCP cut": self._cut,
            }

    def play(self) -> None:
        tally, deadline = self._tally, time.monotonic() + RUN_S
        progress, next_at = 0, self._chance.randrange(1, 20)
        with Watcher(self._store) as watcher:
            while not self._finished():
                assert time.monotonic() < deadline, f"no end after {dict(tally.dealt)}"
                self._cluster.mend()
                self._count_fired()
                self._wake_who_slept()
                committed = self._n_committed()
                assert committed is None or committed >= progress, "progress never goes back"
                progress = progress if committed is None else committed
                if progress >= next_at and self._programme.left() > 0:
                    self._deal(self._kind())
                    next_at = progress + self._chance.randrange(1, 12)
                time.sleep(LOOK_S)
            self._wake_all()
        self._count_fired()
        tally.looks_at_the_queue += watcher.n_looks
        self._judge()
        if self._proxy is not None:
            self._proxy.close()

    def _kind(self) -> str:
        """One that was dealt least so far, drawn among those."""
        least = min(self._tally.dealt[kind] for kind in self._deals)
        return self._chance.choice([kind for kind in self._deals if self._tally.dealt[kind] == least])

    def _deal(self, kind: str) -> None:
        self._tally.dealt[kind] += 1
        fired = self._deals[kind]()
        if fired is None:
            self._tally.fired[kind] += 1
        else:
            self._armed.append((kind, fired))

    def _count_fired(self) -> None:
        for one in [one for one in self._armed if one[1]()]:
            self._tally.fired[one[0]] += 1
            self._armed.remove(one)

    def _made(self) -> dict[str, str]:
        """The store's place, and what a driver's environment must say of it."""
        world = self._programme.world
        named = {"database": "review"} if self._proxy is not None else {}
        world.spec(store=self._store.name, partition_rows=str(PARTITION_ROWS), **named)
        world.spec_path.rename(self._spec)
        if self._proxy is None:
            return {}
        direct = sa.make_url(self._server.make_database())
        os.environ["BATCHSCORE_URL_REVIEW"] = direct.render_as_string(hide_password=False)  # of those who only look
        upgrade_database(self._store, "review", "integer")
        cut = direct.set(host="127.0.0.1", port=self._proxy.port).update_query_dict({"read_timeout": "2", "connect_timeout": "2"})
        return {"BATCHSCORE_URL_REVIEW": cut.render_as_string(hide_password=False)}

    def _drive(self, armed: str = "", clock_s: int = 0, fired: Path | None = None) -> Child:
        arguments = str(self._spec), self._cluster.address, armed, clock_s, fired
        return Child(drive, *arguments, environment=self._environment)

    def _mark(self) -> Path:
        """A file that whoever is armed makes when it fires."""
        return self._programme.world.folder / f"{self._store.name}-fired-{self._tally.dealt.total()}"

    def _finished(self) -> bool:
        """Whether the driver has ended well; one that has not is started again."""
        code = self._driver.poll()
        if code is not None and code != 0:
            self._driver = self._drive()
        return code == 0

    def _n_committed(self) -> int | None:
        """Partitions committed so far, as any other process sees it; None while nobody can look."""
        try:
            reader = open_reader(self._store)
            return sum(stage.n_committed for row in reader.runs() for stage in reader.stages(row.run_id))
        except BatchscoreError:
            return None

    def _kill_driver(self) -> None:
        self._driver.kill()

    def _stop_driver(self) -> None:
        """Another one takes over once the lease has run out; the first wakes late, and must change nothing."""
        zombie = self._driver
        zombie.stop()
        self._zombies.append(zombie)
        self._later.append((time.monotonic() + LEASE_S * 3, zombie.wake))
        time.sleep(LEASE_S * 1.2)
        self._driver = self._drive()

    def _stop_worker(self) -> None:
        worker = self._cluster.worker()
        worker.suspend()

        def wake() -> None:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.resume()

        self._later.append((time.monotonic() + WORKER_TTL_S * 1.5, wake))

    def _stop_scheduler(self) -> None:
        scheduler = self._cluster.scheduler()
        scheduler.stop()
        self._later.append((time.monotonic() + self._chance.uniform(0.2, 1.0), scheduler.wake))

    def _kill_server(self) -> None:
        self._server.kill()
        time.sleep(self._chance.uniform(0.0, 0.3))
        self._server.start()

    def _stop_server(self) -> None:
        """Longer than a driver waits for an answer, at times."""
        self._server.stop_still()
        time.sleep(self._chance.uniform(0.2, 3.0))
        self._server.wake()

    def _cut(self) -> Fired:
        proxy = self._proxy
        assert proxy is not None
        self._count_fired()  # of an earlier one, which ends here
        self._armed = [one for one in self._armed if one[0] != "TCP cut"]
        proxy.arm(self._chance.choice(CUTS), self._chance.randrange(1, 12))
        return lambda: bool(proxy.happened_on)

    def _sicken(self, how: str) -> Fired:
        """A worker's, or the driver's, disk fails once, at one of the steps of a file to come."""
        at, fired = self._chance.randrange(1, 2 * FILE_POINTS), self._mark()
        if self._chance.random() < 0.7:
            self._cluster.sicken_worker(f"file *={how}@{at}", fired)
        else:
            self._driver.kill()
            self._driver = self._drive(f"file *={how}@{at}", fired=fired)
        return fired.exists

    def _jump(self) -> Fired:
        """The next driver sees the database's clock a day off."""
        fired = self._mark()
        self._driver.kill()
        self._driver = self._drive(clock_s=self._chance.choice([-DAY_S, DAY_S]), fired=fired)
        return fired.exists

    def _wake_who_slept(self) -> None:
        now = time.monotonic()
        for due, wake in [one for one in self._later if one[0] <= now]:
            wake()
            self._later.remove((due, wake))

    def _wake_all(self) -> None:
        for _, wake in self._later:
            wake()
        self._later.clear()
        for zombie in self._zombies:
            zombie.wake()
            assert zombie.wait() != 1, "who comes back late is fenced, and says so"

    def _judge(self) -> None:
        """Compare with the run that was left alone."""
        reader = open_reader(self._store)
        (row,) = reader.runs()
        stages = {stage.stage: stage for stage in reader.stages(row.run_id)}
        assert row.state == "finished"
        assert stages[Stage.SCORE].n_partitions >= 100
        scored, tally = _scored(self._store, row.run_id), self._tally
        tally.quarantined += sum(stage.n_quarantined for stage in stages.values())
        tally.lost += len(self._programme.scored.keys() - scored.keys())
        tally.doubled += scored.total() - len(scored)
        tally.equal += run_digest(self._store, row.run_id) == self._programme.digest


def _scored(store: Path, run_id: str) -> Counter[tuple[Any, Any]]:
    """How often each account was scored as of each date."""
    outputs = [output for receipt in open_reader(store).receipts(run_id, Stage.SCORE) for output in receipt.outputs]
    columns = ["account_id", "as_of"]
    files = [pq.read_table(store / output.path, columns=columns) for output in outputs if output.role == "scores"]
    table = pa.concat_tables(file.replace_schema_metadata(None) for file in files)
    return Counter(zip(table["account_id"].to_pylist(), table["as_of"].to_pylist(), strict=True))
