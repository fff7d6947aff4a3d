"""Clusters as a team would start them: by the systemd units' own command lines, and by the compose file's."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from batchscore.demo.training import train_bundle
from batchscore.demo.truth import Truth
from batchscore.demo.world import trained_as_of, write_world
from batchscore.spec import read_spec
from tests.commands import call
from tests.deploy import compose
from tests.deploy.processes import free_ports, started, until_it_listens
from tests.deploy.units import ROOT, Command, Host, command_of, read_unit

N_WORKERS = 2
AS_OF = "2026-03-01"  # the simulated world's time ends on the day after


@dataclass(frozen=True, kw_only=True)
class World:
    """/srv/batchscore of a host: jobs/ and the small simulated world beside it, with a store of its own."""

    folder: Path

    @property
    def sweep(self) -> Path:
        return self.folder / "jobs/world/sweep.yaml"

    @property
    def store(self) -> Path:
        return self.folder / "demo-100000/store"


def make_world(folder: Path) -> World:
    shutil.copytree(ROOT / "jobs", folder / "jobs")
    world = folder / "demo-100000"
    write_world(world, accounts=600, days=60, seed=7)
    train_bundle(read_spec(world / "spec.yaml"), Truth(world / "truth.parquet"), trained_as_of(60))
    shutil.rmtree(world / "store", ignore_errors=True)  # training's own
    sweep = folder / "jobs/world/sweep.yaml"
    sweep.write_text(sweep.read_text().replace("partition_rows: 25000", "partition_rows: 50"))
    return World(folder=folder)


def make_host(root: Path, world: World) -> Host:
    """A host with the world in /srv/batchscore, certificates, Dask's configuration and the folder of node_exporter."""
    (root / "srv").mkdir(parents=True)
    shutil.copytree(world.folder, root / "srv/batchscore")
    (root / "var/lib/prometheus/node-exporter").mkdir(parents=True)
    (root / "tmp").mkdir()
    call("cluster", "certs", root / "etc/batchscore/tls", "--host", "127.0.0.1")
    shutil.copy(ROOT / "cluster/dask.yaml", root / "etc/batchscore/dask.yaml")
    said = (8786, 8787, 8801, 8802, 9108, 9109, 9110)
    return Host(root=root, programs=Path(sys.executable).parent, ports=dict(zip(said, free_ports(len(said)), strict=True)))


def unit_command(name: str, host: Host, instance: str = "") -> Command:
    folder = ROOT / ("jobs/systemd" if (ROOT / "jobs/systemd" / name).exists() else "cluster/systemd")
    return command_of(read_unit(folder / name, instance), host)


@contextmanager
def systemd_cluster(host: Host) -> Iterator[None]:
    """Scheduler and workers by the units' own command lines."""
    with ExitStack() as stack:
        scheduler = unit_command("batchscore-scheduler.service", host)
        until_it_listens(host.ports[8786], stack.enter_context(started(scheduler, host.root / "scheduler.log")))
        for number in range(1, N_WORKERS + 1):
            worker = unit_command("batchscore-worker@.service", host, f"{number:02d}")
            stack.enter_context(started(worker, host.root / "worker.log"))
        yield


@contextmanager
def compose_cluster(host: Host) -> Iterator[None]:
    """Scheduler and workers by the compose file's own command lines; each worker's container has a port 8787 of its own."""
    secrets = host.root / "etc/batchscore/tls"
    with ExitStack() as stack:
        scheduler = compose.command_of("scheduler", host, secrets)
        until_it_listens(host.ports[8786], stack.enter_context(started(scheduler, host.root / "scheduler.log")))
        for port in free_ports(N_WORKERS):
            apart = replace(host, ports=host.ports | {8787: port})
            stack.enter_context(started(compose.command_of("worker", apart, secrets), host.root / "worker.log"))
        yield
