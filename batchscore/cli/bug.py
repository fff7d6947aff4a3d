"""What is said of an exception nobody foresaw: its type and where, not its text, which may quote somebody's data."""

from __future__ import annotations

import os
import traceback

import click


def tell_bug(error: BaseException) -> str:
    """Print type and place, and return them; the whole traceback when BATCHSCORE_TRACEBACK is set, for whoever mends it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "?"
    said = f"a bug in batchscore: {type(error).__name__} at {place}"
    click.echo(said, err=True)
    click.echo("  → set BATCHSCORE_TRACEBACK=1 to see the traceback (it may show data), and report it", err=True)
    if os.environ.get("BATCHSCORE_TRACEBACK"):
        click.echo("".join(traceback.format_exception(error)), err=True)
    return said
