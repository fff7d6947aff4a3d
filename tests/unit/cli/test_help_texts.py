"""--help of every command: what a person reads, not what click is told."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from batchscore.cli.main import cli


def _commands(group: click.Group, context: click.Context, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        found.append((*above, name))
        if isinstance(command, click.Group):
            found += _commands(command, context, (*above, name))
    return found


@pytest.mark.parametrize("command", _commands(cli, click.Context(cli)), ids=" ".join)
def test_no_help_shows_the_mark_that_keeps_its_lines(command: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli, [*command, "--help"])
    assert done.exit_code == 0
    assert "\\b" not in done.output
    assert "\b" not in done.output
