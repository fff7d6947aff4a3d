"""Debian's Prometheus and node_exporter watch a real run on a real cluster: every alert's and every panel's query has data."""

from __future__ import annotations

import json
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from tests.deploy.clusters import AS_OF, make_host, make_world, systemd_cluster, unit_command
from tests.deploy.processes import finished, free_ports, started, told_by, until_it_listens
from tests.deploy.tools import tool
from tests.deploy.units import Command
from tests.deploy.watching import DASHBOARD, PROMETHEUS, RULES

COMPARED = re.compile(r"^(?P<left>.*?)(?: (?:[<>]=?|==|!=) [\d.]+)+$")
PANELS = [
    (panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", ())
]  # one query, one case
WAIT_S = 60
STEP_S = 1


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A Prometheus that has seen a run from its first event to its end."""

    port: int
    from_s: float
    to_s: float

    def has_data(self, query: str) -> bool:
        """Whether the query gave anything at any moment of the run or right after."""
        asked = {"query": query, "start": self.from_s, "end": self.to_s, "step": STEP_S}
        return bool(ask(self.port, "query_range", asked)["result"])


def ask(port: int, what: str, asked: dict[str, Any]) -> Any:
    url = f"http://127.0.0.1:{port}/api/v1/{what}?{urllib.parse.urlencode(asked)}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)["data"]


def until_there_is(port: int, query: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not ask(port, "query", {"query": query})["result"]:
        assert time.monotonic() < deadline, f"never seen: {query}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """The sweep's unit, on the cluster of the units, scraped as prometheus.yml says but every half second."""
    folder = tmp_path_factory.mktemp("watched")
    host = make_host(folder / "host", make_world(folder / "world"))
    node, port = free_ports(2)
    configuration = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "1s"}
    configuration["rule_files"] = [str(PROMETHEUS / "alerts.yml")]
    for scraped in configuration["scrape_configs"]:
        for targets in scraped["static_configs"]:
            targets["targets"] = [host.here(target).replace(":9100", f":{node}") for target in targets["targets"]]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    textfiles = host.root / "var/lib/prometheus/node-exporter"
    exporter = Command(
        words=[tool("prometheus-node-exporter"), f"--web.listen-address=127.0.0.1:{node}", "--collector.disable-defaults",
               "--collector.textfile", f"--collector.textfile.directory={textfiles}"],
        environment={},
    )  # fmt: skip
    prometheus = Command(
        words=[tool("prometheus"), f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
               f"--web.listen-address=127.0.0.1:{port}"],
        environment={},
    )  # fmt: skip
    with (
        started(exporter, folder / "exporter.log"),
        started(prometheus, folder / "prometheus.log") as server,
        systemd_cluster(host),
    ):
        until_it_listens(port, server)
        standing = [target for scraped in configuration["scrape_configs"] if scraped["job_name"] != "batchscore"
                    for targets in scraped["static_configs"] for target in targets["targets"]]  # fmt: skip
        # it listens some seconds before it scrapes, and a whole run is no longer than that
        until_there_is(port, f'count(up{{job!="batchscore"}} == 1) == {len(standing)}')
        began = time.time()
        ended = finished(unit_command("batchscore-sweep.service", host), host.root, "--as-of", AS_OF)
        assert ended.returncode == 0, ended.stderr[-3_000:]
        until_there_is(port, 'batchscore_run_exit_code{job="node"}')
        time.sleep(STEP_S)  # a range ends with its last whole step
        yield Watched(port=port, from_s=began, to_s=time.time())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_what_an_alert_compares_is_there(watched: Watched, rule: dict[str, Any]) -> None:
    found = COMPARED.match(rule["expr"])
    assert found is not None, "an alert is LEFT COMPARISON NUMBER, or nobody can ask whether its left side has data"
    assert watched.has_data(found["left"])


@pytest.mark.parametrize(("panel", "query"), PANELS, ids=[f"{title}: {query[:30]}" for title, query in PANELS])
def test_a_panel_shows_something(watched: Watched, panel: str, query: str) -> None:
    assert watched.has_data(query.replace('"$spec"', '".*"').replace("$__rate_interval", "4s"))


def test_the_run_was_seen_alive_and_after_its_end(watched: Watched) -> None:
    assert watched.has_data('batchscore_run_active{job="batchscore"} == 1')
    assert watched.has_data('batchscore_run_active{job="node"} == 0')


def test_no_alert_of_batchscore_fires_for_a_run_that_went_well(watched: Watched) -> None:
    firing = {alert["labels"]["alertname"] for alert in ask(watched.port, "alerts", {})["alerts"] if alert["state"] == "firing"}
    assert firing == set()  # BatchscoreSweepStale is pending: the world's time ended long ago


def test_promtool_has_nothing_to_say_and_every_unit_test_of_a_rule_passes() -> None:
    promtool = tool("promtool")
    for arguments in (
        ["check", "rules", "alerts.yml"],
        ["check", "config", "prometheus.yml"],
        ["test", "rules", "alerts_test.yml"],
    ):
        done = told_by([promtool, *arguments], cwd=PROMETHEUS)
        assert done.returncode == 0, done.stdout + done.stderr
