"""`systemctl stop` of a job as its unit means it: the driver alone is told, drains in time, ends with 5, and goes on."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from batchscore.errors import DONE, INTERRUPTED
from batchscore.store import open_reader
from tests.commands import call
from tests.deploy.clusters import AS_OF, make_host, make_world, systemd_cluster, unit_command
from tests.deploy.processes import finished, started
from tests.deploy.units import ROOT, Command, read_unit
from tests.run_digest import run_digest

UNIT = "batchscore-sweep.service"
BEGUN_S = 60


def test_a_stopped_sweep_drains_within_its_units_time_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    world = make_world(tmp_path / "world")
    world.sweep.write_text(world.sweep.read_text().replace("partition_rows: 50", "partition_rows: 4"))
    undisturbed, host = make_host(tmp_path / "undisturbed", world), make_host(tmp_path / "host", world)
    assert call("sweep", undisturbed.root / "srv/batchscore/jobs/world/sweep.yaml", "--as-of", AS_OF, "--inline").code == DONE
    unit, command = read_unit(ROOT / "jobs/systemd" / UNIT), unit_command(UNIT, host)
    store = Path("srv/batchscore/demo-100000/store")
    with systemd_cluster(host):
        log = host.root / "sweep.log"
        asked = Command(words=[*command.words, "--as-of", AS_OF], environment=command.environment)
        with started(asked, log) as driver:
            deadline = time.monotonic() + BEGUN_S
            while log.read_text().count("partition committed") < 10:  # freeze, rollup and some of score
                assert driver.poll() is None, log.read_text()[-2_000:]
                assert time.monotonic() < deadline
                time.sleep(0.01)
            driver.send_signal(signal.SIGTERM)
            assert driver.wait(timeout=int(unit.one("TimeoutStopSec"))) == INTERRUPTED
        (row,) = open_reader(host.root / store).runs(limit=10)
        assert row.state == "interrupted"
        textfile = host.root / "var/lib/prometheus/node-exporter/batchscore-sweep.prom"
        assert 'batchscore_run_exit_code{spec="world-sweep"} 5.0' in textfile.read_text()
        again = finished(command, host.root, "--as-of", AS_OF)
        assert again.returncode == DONE, again.stderr[-2_000:]
    (row,) = open_reader(host.root / store).runs(limit=10)
    (other,) = open_reader(undisturbed.root / store).runs(limit=10)
    assert (row.state, row.epoch) == ("finished", 2)
    assert run_digest(host.root / store, row.run_id) == run_digest(undisturbed.root / store, other.run_id)
