"""`batchscore schema`: what people write fits, what would be refused does not, and output is described for every command."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

import batchscore.demo
from batchscore.cli.main import COMMANDS, cli
from batchscore.cli.outputs import OUTPUTS
from batchscore.cli.schemas import schema_names, schema_of
from batchscore.demo.world import FEATURES, SPEC
from tests.small_world import FEATURES as SMALL
from tests.unit.cli.json_schema import faults

DEMO = Path(batchscore.demo.__file__).parent / "spamassassin"
SPECS = [(DEMO / "spec.yaml").read_text(), SPEC.format(first="2026-01-31", last="2026-02-28", every=7, budget=25)]
MORE = """\
  spread: {std: mails.bytes, window: 12h}
  latest: {last: mails.bytes, where: [[rcpt, ">", 3], [kind, in, [a, b]]]}
  favourite: {top_share: mails.to, where: [[[html, "==", true]], [[kind, "!=", x]]]}
  change: {difference: [mails_7d, active]}
  scored: {python: "rules:risk", of: [mails_7d, age]}
"""
SETS = [(DEMO / "features.yaml").read_text(), FEATURES, SMALL.format(kind="integer"), SMALL.format(kind="string") + MORE]


def written(text: str) -> Any:
    """YAML as an editor sees it: dates are text."""
    return json.loads(json.dumps(yaml.safe_load(text), default=date.isoformat))


def faults_of(text: str, name: str) -> list[str]:
    return faults(written(text), schema_of(name), schema_of(name))


@pytest.mark.parametrize("text", SPECS)
def test_specs_that_are_read_fit_the_schema(text: str) -> None:
    assert faults_of(text, "spec") == []


@pytest.mark.parametrize("text", SETS)
def test_feature_sets_that_are_read_fit_the_schema(text: str) -> None:
    assert faults_of(text, "feature-set") == []


@pytest.mark.parametrize("as_of", ["2002-08-19", "[2002-08-19, 2002-08-26]", "{from: 2002-08-19, to: 2002-09-30, every: 7d}"])
def test_an_as_of_is_one_date_a_list_or_a_range(as_of: str) -> None:
    assert faults_of(SPECS[0].replace("{from: 2002-08-19, to: 2002-09-30, every: 7d}", as_of), "spec") == []


@pytest.mark.parametrize("where", ["[[plan, in, [1, 2]], [closed_at, is, null]]", "[[[plan, ==, a]], [[plan, is not, null]]]"])
def test_a_source_may_be_filtered(where: str) -> None:
    table = f"{{sql: {{url: crm, table: users, where: {where}}}}}"
    lines = yaml.safe_load(SPECS[1])
    lines["sources"]["accounts"] = yaml.safe_load(table)
    assert faults_of(yaml.safe_dump(lines), "spec") == []
    lines["sources"]["accounts"] = yaml.safe_load(table.replace("plan, ", "1, "))
    assert faults_of(yaml.safe_dump(lines), "spec") != []


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("spec", "release: latest", "release: newest"),
        ("spec", "partition_rows: 500", "partition_rows: 0"),
        ("spec", "partition_rows: 500", "surprise: 1"),
        ("spec", "every: 7d", "every: 7"),
        ("spec", "threshold: 0.5", "threshold: 1.5"),
        ("feature-set", "{count: mails, window: 7d}", "{count: mails.bytes, window: 7d}"),
        ("feature-set", "{count: mails, window: 7d}", "{count: mails, window: 7}"),
        ("feature-set", "{count: mails, window: 7d}", "{count: mails, sum: mails.bytes}"),
        ("feature-set", "{ratio: [mails_7d, mails_28d]", "{ratio: [mails_7d]"),
        ("feature-set", "    known_at: event_at\n", ""),
        ("feature-set", "account_id: string", "account_id: text"),
    ],
)
def test_what_would_be_refused_breaks_the_schema(name: str, right: str, wrong: str) -> None:
    text = (SPECS if name == "spec" else SETS)[0]
    assert right in text
    assert faults_of(text.replace(right, wrong), name)


def test_every_command_that_prints_json_has_a_schema() -> None:
    assert set(COMMANDS) - {"schema"} <= {name.partition(" ")[0] for name in OUTPUTS}


@pytest.mark.parametrize("name", schema_names())
def test_schemas_are_printed_whole(name: str) -> None:
    done = CliRunner().invoke(cli, ["schema", name])
    assert done.exit_code == 0
    schema = json.loads(done.output)
    assert schema["type"] == "object"
    text = json.dumps(schema)
    for reference in set(re.findall(r'"#/\$defs/([A-Za-z]+)"', text)):
        assert reference in schema["$defs"]


def test_an_unknown_schema_names_those_there_are() -> None:
    done = CliRunner().invoke(cli, ["schema", "nonsense"])
    assert done.exit_code == 2
    assert "feature-set" in done.output
