"""`batchscore help`: every error of the catalogue is explained, and found by code, number and reason."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from batchscore.cli.error_texts import ADVICE, exits
from batchscore.cli.main import COMMANDS, cli
from batchscore.cli.outputs import HelpShown
from batchscore.errors import CATALOGUE


def said(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["help", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_every_error_and_no_other_has_advice() -> None:
    assert set(ADVICE) == set(CATALOGUE)


@pytest.mark.parametrize("reason", list(CATALOGUE))
def test_advice_says_more_than_the_catalogue(reason: str) -> None:
    advice = ADVICE[reason]
    meaning = CATALOGUE[reason][1]
    assert meaning not in {advice.causes, advice.remedy}
    assert len(advice.causes) + len(advice.remedy) >= 120
    assert exits(reason)[0] in "12345"


def test_no_two_errors_share_a_number() -> None:
    numbers = [number for number, _ in CATALOGUE.values()]
    assert len(set(numbers)) == len(numbers)


def test_the_list_holds_every_error() -> None:
    lines = said().splitlines()
    for reason, (number, _) in CATALOGUE.items():
        assert any(line.startswith(f"BS-{number}  {reason} ") for line in lines)


@pytest.mark.parametrize("word", ["BS-203", "bs-203", "203", "column_missing", "column-missing"])
def test_an_error_is_found_by_code_number_and_reason(word: str) -> None:
    shown = said(word)
    assert shown.startswith("BS-203 column_missing\n")
    for title in ("causes:", "what to do:", "exit code:"):
        assert title in shown


def test_a_near_word_is_suggested() -> None:
    done = CliRunner().invoke(cli, ["help", "colum_missing"])
    assert done.exit_code == 2
    assert "did you mean 'column_missing'?" in done.output


def test_help_in_json_has_them_all() -> None:
    errors = HelpShown.model_validate_json(said("--json")).errors
    assert {error.reason for error in errors} == set(CATALOGUE)


def test_every_command_named_in_advice_is_one() -> None:
    text = " ".join(f"{advice.causes} {advice.remedy}" for advice in ADVICE.values())
    assert set(re.findall(r"`batchscore ([a-z]+)", text)) <= set(COMMANDS)


@pytest.mark.parametrize("code", ["BS-209", "BS-210"])
def test_ids_no_run_can_go_on_with_are_not_said_to_quarantine_a_partition(code: str) -> None:
    said = CliRunner().invoke(cli, ["help", code]).output
    assert "the run ends" in " ".join(said.split())
    assert "quarantined" not in said
