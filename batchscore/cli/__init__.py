"""The command line: each command is one call of the layers below. The only place that prints and that exits."""

from batchscore.cli.main import main

__all__ = ["main"]
