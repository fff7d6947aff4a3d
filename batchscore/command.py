"""Commands as messages name them: whole, with the store's folder, each word as a shell takes it, to be pasted as they stand."""

from __future__ import annotations

import shlex
from pathlib import Path


def command(verb: str, run_id: str, store: Path | str, *more: str) -> str:
    """``batchscore VERB RUN MORE… --store FOLDER``; ``more``: options, as they are to stand there. No folder: the default one."""
    return whole_command(verb, store, run_id, *more)


def whole_command(verb: str, store: Path | str, *more: str) -> str:
    """``batchscore VERB MORE… --store FOLDER``, of a command that is about no run, such as ``queue list``."""
    words = ["batchscore", verb, *more]
    return " ".join(words if str(store) == "" else [*words, "--store", word(store)])


def word(text: Path | str) -> str:
    """One word of a command line, quoted where a shell would make more of it."""
    return shlex.quote(str(text))
