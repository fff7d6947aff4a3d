"""What the demo shows of a finished run: the proof, the top of the queue, precision beside the base rate, what to type next."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from batchscore.demo.precision import AbusiveShare, DatePrecision, measure
from batchscore.demo.truth import Truth
from batchscore.layout import Definitions
from batchscore.observe.terminal import show_flags, show_proof
from batchscore.observe.text import plain
from batchscore.ports import RunRow, StoreReader
from batchscore.proving import prove_run

SHOWN_FLAGS: Final = 5
_ALL_FLAGS: Final = 1_000_000


def say(console: Console, line: str = "") -> None:
    """One line of text as it is: no markup, and not broken where a terminal ends, so that it can be copied."""
    console.print(Text(plain(line)), soft_wrap=True)


def show_results(row: RunRow, reader: StoreReader, truth: Truth, trained_as_of: datetime, console: Console) -> None:
    """The proof, the queue and the precision of a finished run."""
    say(console)
    show_proof(prove_run(row.plan, Definitions.of(row.plan), reader, row.run_id), console)
    queue = row.plan.spec.policy.queue
    say(console, f"\nthe queue {queue!r}, best {SHOWN_FLAGS} of {len(reader.queue(queue, limit=_ALL_FLAGS))}:")
    show_flags(reader.queue(queue, limit=SHOWN_FLAGS), console)
    _show_precision(measure(row, reader, truth, trained_as_of), trained_as_of, console)


def _show_precision(measured: Iterable[DatePrecision], trained_as_of: datetime, console: Console) -> None:
    say(console, "\nflags that were right, by the truth of that date, beside the base rate: the share of all accounts scored.")
    say(console, f"`new` accounts came after {trained_as_of:%Y-%m-%d}, so the model was not trained on their labels.")
    say(console, f"  {'as of':<10}  {'all flags right':>18}  {'base rate':>9}  {'of new accounts':>18}  {'base rate':>9}")
    for line in measured:
        released = "  ← released" if line.released else ""
        say(
            console,
            f"  {line.as_of:%Y-%m-%d}  {_hits(line.flagged):>18}  {line.scored!s:>9}"
            f"  {_hits(line.new_flagged):>18}  {line.new_scored!s:>9}{released}",
        )


def _hits(share: AbusiveShare) -> str:
    return f"{share.n_abusive} of {share.n}, {share!s:>4}"


def show_next(row: RunRow, spec_path: Path, first: Sequence[str], console: Console) -> None:
    """Commands that work when they are copied; ``first`` are those without which the others would not.

    `make demo` runs the program by its path: its shell knows no ``batchscore`` until the environment is activated.
    """
    store, spec = shlex.quote(row.plan.spec.store), shlex.quote(str(spec_path))
    say(console, "\nnext, try:")
    activate = shlex.quote(str(Path(sys.prefix) / "bin" / "activate"))
    for command in (
        *([f". {activate}"] if shutil.which("batchscore") is None else []),
        *first,
        f"batchscore report {row.run_id} --store {store}    # one page: flags, scores, proof, times",
        f"batchscore status {row.run_id} --store {store}",
        f"batchscore queue --store {store} -n 25",
        f"batchscore plan {spec}",
        f"batchscore run {spec} --again    # the next generation: whatever can be reused is",
    ):
        say(console, f"  {command}")
