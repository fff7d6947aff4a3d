"""Options and arguments that several commands share."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

SPEC = click.argument("spec", type=click.Path(path_type=Path))
STORE = click.option(
    "--store", type=click.Path(path_type=Path), default=Path("store"), show_default=True, help="The store's folder."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON (batchscore schema COMMAND describes it).")
BY = click.option("--by", required=True, metavar="NAME", help="Who does it: it stands in the queue, the trail and in exports.")
MAX_OFFERED = 30
LARGEST_NUMBER = (1 << 63) - 1  # of what a database counts


class FiniteRange(click.FloatRange):
    """A number within bounds. For click NaN lies within any, and infinity within open ones."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The text as a number."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


def _run_ids(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The newest runs of the store on the line so far; nothing when there is none: a tab must not fail loudly."""
    with contextlib.suppress(Exception):
        from batchscore.store import open_reader

        store = ctx.params.get("store") or Path("store")
        rows = open_reader(store).runs(limit=MAX_OFFERED)
        return [CompletionItem(row.run_id, help=f"{row.name}, {row.state}") for row in rows if row.run_id.startswith(incomplete)]
    return []


RUN = click.argument("run_id", metavar="RUN", shell_complete=_run_ids)
OPTIONAL_RUN = click.argument("run_id", metavar="RUN", required=False, shell_complete=_run_ids)


def name_of(by: str) -> str:
    """The name of whoever does it, of ``--by``; it is on one line, and says something."""
    from batchscore.audit import mistake_of_name

    if mistake := mistake_of_name(by.strip(), of="whoever does it"):
        raise click.BadParameter(mistake, param_hint="--by")
    return by.strip()
