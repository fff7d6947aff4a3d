"""Alerts, dashboard and runbooks against the code: metrics exist, every alert has a page and a test, every command is one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from batchscore.cli.main import cli
from batchscore.observe.metrics import MetricsObserver
from tests.deploy.units import ROOT
from tests.deploy.watching import DASHBOARD, PROMETHEUS, RULES

PAGES = sorted([*(ROOT / "cluster").rglob("*.md"), ROOT / "jobs/README.md"])
COMMAND = re.compile(r"(?:^|`)(?:\$ )?batchscore ([a-z]+[^`\n|;#]*)", re.MULTILINE)


def test_every_metric_that_is_asked_for_is_one_that_a_run_tells() -> None:
    ends = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    told = MetricsObserver("spec").registry.collect()
    known = {f"{metric.name}{end}" for metric in told for end in ends.get(metric.type, [""])}
    text = (PROMETHEUS / "alerts.yml").read_text() + json.dumps(DASHBOARD)
    assert set(re.findall(r"batchscore_(?:run|sweep)_\w+", text)) <= known


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_has_its_page(rule: dict[str, Any]) -> None:
    assert rule["annotations"]["runbook"] == f"cluster/runbooks/{rule['alert']}.md"
    page = (ROOT / rule["annotations"]["runbook"]).read_text()
    for part in ("**Symptom.**", "**What it means.**", "## Look at", "## Do", "## Escalate"):
        assert part in page


def test_every_page_is_an_alerts() -> None:
    assert {page.stem for page in (ROOT / "cluster/runbooks").glob("*.md")} == {rule["alert"] for rule in RULES} | {"README"}


def test_every_alert_fires_in_a_unit_test() -> None:
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    asked = [one for test in tests for one in test["alert_rule_test"]]
    assert {one["alertname"] for one in asked if one.get("exp_alerts")} == {rule["alert"] for rule in RULES}


def test_panels_lie_beside_each_other() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        mine = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not mine & cells, panel["title"]
        assert at["x"] + at["w"] <= 24
        cells |= mine
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_and_option_on_a_page_exists(page: Path) -> None:
    for spoken in COMMAND.findall(page.read_text()):
        words = spoken.split()
        found: click.Command | None = cli.get_command(click.Context(cli), words[0])
        assert found is not None, f"batchscore {spoken}"
        options = {option for one in _with_subcommands(found) for parameter in one.params for option in parameter.opts}
        asked = {word.partition("=")[0].rstrip(",.)'") for word in words[1:] if word.startswith("--")}
        assert asked <= options | {"--help"}, f"batchscore {spoken}"


def _with_subcommands(command: click.Command) -> list[click.Command]:
    if not isinstance(command, click.Group):
        return [command]
    return [command, *command.commands.values()]
