"""Commands in messages: whole, and each word as a shell takes it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from batchscore.command import command, word


@pytest.mark.parametrize("folder", ["store", "/srv/a b", "o'dd", "$HOME;ls", "-x", "ä\u0308", "a\nb"])
def test_a_shell_reads_back_what_was_meant(folder: str) -> None:
    said = command("undo", "r-1a2b3c4d-1", Path(folder), "--apply --why TEXT")
    words = ["batchscore", "undo", "r-1a2b3c4d-1", "--apply", "--why", "TEXT", "--store", folder]
    assert shlex.split(said) == words
    assert shlex.split(word(folder)) == [folder]


def test_without_a_folder_it_is_the_default_one() -> None:
    assert command("status", "r-1a2b3c4d-1", "") == "batchscore status r-1a2b3c4d-1"
