"""On a terminal and off it: colour only where it is wanted, and nothing is ever asked."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from tests.commands import COMMAND, batchscore
from tests.small_world import SmallWorld, make_small_world

COLOUR = re.compile(r"\x1b\[[\d;]*?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;[\d;]*)?m")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> SmallWorld:
    made = make_small_world(tmp_path_factory.mktemp("terminals"), n_accounts=60)
    done = batchscore(made.folder, "run", "spec.yaml", "--inline")
    assert done.returncode == 0, done.stderr
    return made


def on_a_terminal(folder: Path, *arguments: str, **environment: str) -> str:
    """All that the command shows on a terminal of its own, which answers nothing."""
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"}}
    process = subprocess.Popen(
        [COMMAND, *arguments],
        cwd=folder,
        env=kept | {"TERM": "xterm-256color", "COLUMNS": "100"} | environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65_536):
            shown += part
    except OSError:
        pass  # the other end is closed: Linux says so with an error
    finally:
        os.close(ours)
    assert process.wait(timeout=60) == 0
    return shown.decode()


SHOWS = (["doctor"], ["status"], ["queue"], ["plan", "spec.yaml"], ["run", "spec.yaml", "--inline", "--again"])


def test_a_terminal_shows_colour(world: SmallWorld) -> None:
    assert any(COLOUR.search(on_a_terminal(world.folder, *arguments)) for arguments in SHOWS[:2])


@pytest.mark.parametrize("arguments", SHOWS)
def test_no_color_is_obeyed_on_a_terminal(world: SmallWorld, arguments: list[str]) -> None:
    assert COLOUR.search(on_a_terminal(world.folder, *arguments, NO_COLOR="1")) is None


@pytest.mark.parametrize("arguments", [*SHOWS, ["init", "fresh"], ["watch", "RUN"]])
def test_without_a_terminal_there_is_no_escape_and_no_question(world: SmallWorld, arguments: list[str]) -> None:
    run_id = batchscore(world.folder, "status").stdout
    found = re.search(r"r-[0-9a-f]{8}-\d+", run_id)
    assert found is not None
    done = batchscore(world.folder, *(found[0] if word == "RUN" else word for word in arguments))
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
