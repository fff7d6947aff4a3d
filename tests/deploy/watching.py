"""The alert rules and the dashboard, read once."""

from __future__ import annotations

import json
from typing import Any, Final

import yaml

from tests.deploy.units import ROOT

PROMETHEUS: Final = ROOT / "cluster/prometheus"
DASHBOARD: Final[dict[str, Any]] = json.loads((ROOT / "cluster/grafana/batchscore.json").read_text())
RULES: Final[list[dict[str, Any]]] = [
    rule for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
