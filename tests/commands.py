"""Commands in this process, as fast as a call: what they print, what they return, what they raise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from batchscore.cli.main import cli


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a command printed, on stdout and in all, and its exit code."""

    stdout: str
    output: str
    code: int


def call(*arguments: str | Path) -> Said:
    """The command's outcome; errors raised on purpose come through as they are."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], standalone_mode=False, catch_exceptions=False)
    code = result.return_value if isinstance(result.return_value, int) else 0
    return Said(stdout=result.stdout, output=result.output, code=code)
