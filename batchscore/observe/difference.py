"""How the difference between two runs looks on a terminal. Text from outside is shown as text."""

from __future__ import annotations

from rich.console import Console

from batchscore.observe import tables
from batchscore.observe.terminal import show_flags
from batchscore.report.difference import RunDifference
from batchscore.report.drift import in_words

MAX_DATES = 30
_WORDS = frozenset({"reads as"})  # columns of text


def show_difference(found: RunDifference, console: Console) -> None:
    """Pinned parts, stages, scores, flags: only what there is to say."""
    a, b = found.a, found.b
    tables.line(console, f"A {a.run_id} of {a.name}: {a.state}, opened {a.opened_at:%Y-%m-%d %H:%M} UTC")
    tables.line(console, f"B {b.run_id} of {b.name}: {b.state}, opened {b.opened_at:%Y-%m-%d %H:%M} UTC")
    _show_pinned(found, console)
    stages = tables.table("stage", "rows of A", "rows of B", "seconds of A", "seconds of B", words=_WORDS)
    for stage in found.stages:
        stages.add_row(
            stage.stage,
            tables.number(stage.rows_a),
            tables.number(stage.rows_b),
            _seconds(stage.seconds_a),
            _seconds(stage.seconds_b),
        )
    console.print(stages)
    _show_scores(found, console)
    _show_flags(found, console)
    for mine, other, rows in (("B", "A", found.new_in_queue), ("A", "B", found.dropped_in_queue)):
        if rows:
            tables.line(console, f"in the queue now from {mine}, and flagged by {other} at no as-of (the best {len(rows)}):")
            show_flags([row.model_copy(update={"flag": row.flag.model_copy(update={"reasons": ()})}) for row in rows], console)
    for gap in found.gaps:
        tables.line(console, f"could not be read: {gap}")


def _show_pinned(found: RunDifference, console: Console) -> None:
    if not found.pinned:
        tables.line(console, "every pinned part is the same: the two must give equal scores")
        return
    pinned = tables.table("pinned part that differs", "A", "B", words=_WORDS)
    for part in found.pinned:
        pinned.add_row(tables.text(part.part), tables.text(part.a[:20] or "–"), tables.text(part.b[:20] or "–"))
    console.print(pinned)


def _show_scores(found: RunDifference, console: Console) -> None:
    scores = tables.table("scores as of", "of A", "of B", "PSI", "reads as", words=_WORDS)
    for pair in found.scores[-MAX_DATES:]:
        psi = "–" if pair.psi is None else f"{pair.psi:.3f}"
        scores.add_row(f"{pair.as_of:%Y-%m-%d}", tables.number(pair.n_a), tables.number(pair.n_b), psi, in_words(pair.psi))
    console.print(scores)
    _left(len(found.scores), console)


def _show_flags(found: RunDifference, console: Console) -> None:
    flags = tables.table("flags as of", "of A", "of B", "new in B", "dropped from A", "at another rank", words=_WORDS)
    for pair in found.flags[-MAX_DATES:]:
        counts = (pair.n_a, pair.n_b, pair.n_new, pair.n_dropped, pair.n_moved)
        flags.add_row(f"{pair.as_of:%Y-%m-%d}", *map(tables.number, counts))
    console.print(flags)
    _left(len(found.flags), console)


def _left(n: int, console: Console) -> None:
    if n > MAX_DATES:
        tables.line(console, f"{n - MAX_DATES} earlier as-of dates are not shown: --json has all")


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:,.2f}"
