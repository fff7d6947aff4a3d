"""Commands in this process, as fast as a call: what they print, return and raise; and programs, real commands among them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from batchscore.cli.main import cli

COMMAND = str(Path(sys.executable).with_name("batchscore"))


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


def ended(
    *words: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout_s: float | None = None
) -> subprocess.CompletedProcess[str]:
    """A program that has run to its end, without a terminal. Of a test that fails pytest shows what its programs said."""
    done = subprocess.run(
        words, cwd=cwd, env=env, timeout=timeout_s, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    return done


def succeeded(*words: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """What a program that must end well said on stdout."""
    done = ended(*words, cwd=cwd, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def batchscore(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The real command in ``folder``, as `ended`."""
    return ended(COMMAND, *arguments, cwd=folder, env=os.environ | environment)
