"""Commands as messages name them: whole, with the store's folder, each word as a shell takes it, to be pasted as they stand."""

from __future__ import annotations

import shlex
from pathlib import Path


def command(verb: str, run_id: str, store: Path | str, *more: str) -> str:
    """``batchscore VERB RUN MORE… --store FOLDER``; ``more``: options, as they are to stand there. No folder: the default one."""
    words = ["batchscore", verb, run_id, *more]
    return " ".join(words if store == "" else [*words, "--store", word(store)])


def word(text: Path | str) -> str:
    """One word of a command line, quoted where a shell would make more of it."""
    return shlex.quote(str(text))
