"""How an explanation looks on a terminal. Text from outside is shown as text."""

from __future__ import annotations

from typing import Final

from rich.console import Console

from batchscore.observe import tables
from batchscore.observe.text import shown_id
from batchscore.report.explanation import Explanation, FrozenRow

MAX_ROWS: Final = 25
_STANDS: Final = {
    "rejected": "was rejected",
    "unscoreable": "is unscoreable: the data do not reach back far enough",
    "outside": "did not exist then: not created yet, or deleted",
    "quarantined": "is in a partition that was set aside",
}


def show_explanation(found: Explanation, console: Console) -> None:
    """How it stands and why, what each feature gave, the rows it came from, and what was made again."""
    tables.line(console, _headline(found))
    state = f"; its flag is {found.flag_state}" if found.flag_state else ""
    tables.line(console, f"run {found.run_id} of {found.spec}, queue {found.queue}{state}")
    if found.selection is not None:
        said = "selected" if found.selection.selected else "not selected"
        tables.line(console, f"{said}: {found.selection.said}")
        tables.line(console, _policy(found))
    _show_features(found, console)
    _show_rows(found.rows, console)
    for name, digest in found.digests.items():
        tables.line(console, f"{name:<24}  {digest}")
    _show_checks(found, console)


def _headline(found: Explanation) -> str:
    who = f"account {shown_id(found.account_id)} as of {found.as_of:%Y-%m-%d %H:%M} UTC"
    if found.score is not None and found.margin is not None:
        rank = f", rank {found.selection.rank}" if found.selection is not None and found.selection.selected else ""
        return f"{who}: score {found.score:.6f} (margin {found.margin:+.6f}){rank}"
    return f"{who} {_STANDS[found.outcome]}" + (f" ({found.code})" if found.code else "")


def _policy(found: Explanation) -> str:
    chosen = found.selection
    assert chosen is not None, "asked for before"
    bounds = [
        f"score ≥ {chosen.threshold:g}" if chosen.threshold is not None else "",
        f"at most {chosen.budget:,}" if chosen.budget is not None else "",
    ]
    return (
        f"policy: {' and '.join(bound for bound in bounds if bound)}; of {chosen.n_scored:,} scored {chosen.n_reaching:,} could "
        f"be flagged, {chosen.n_blocked:,} had a flag open, {chosen.n_selected:,} were selected"
    )


def _show_features(found: Explanation, console: Console) -> None:
    if not found.features:
        return
    wide = max(len(feature.code or "") for feature in found.features)
    for feature in found.features:
        gave = f"{'–':>10}" if feature.contribution is None else f"{feature.contribution:>+10.6f}"
        tables.line(console, f"  {gave}  {feature.code or '':<{wide}}  {feature.sentence}")
    if found.base is not None:
        tables.line(console, f"  {found.base:>+10.6f}  {'':<{wide}}  what the model gives everybody")


def _show_rows(rows: tuple[FrozenRow, ...], console: Console) -> None:
    """By file; those that count first, since a loud account has many that are too old."""
    shown = sorted(rows, key=lambda row: not row.counts)[:MAX_ROWS]
    for file in dict.fromkeys((row.table, row.file, row.file_sha256) for row in shown):
        tables.line(console, f"{file[0]}: {file[1]}, sha256 {file[2][:16]}")
        for row in shown:
            if (row.table, row.file, row.file_sha256) == file:
                counts = "" if row.counts else "  (does not count)"
                tables.line(console, f"  row {row.row_group}:{row.row:<6}  {row.sha256[:16]}  {_holds(row)}{counts}")
    if len(rows) > len(shown):
        tables.line(console, f"  {len(rows) - len(shown):,} more rows are not shown: --json has all, with whole digests")


def _holds(row: FrozenRow) -> str:
    if row.n_events is None or row.happened_at is None:
        return "the account" + (f" from {row.known_at:%Y-%m-%d %H:%M}" if row.known_at else "")
    late = f", known {row.known_at:%Y-%m-%d}" if row.known_at and row.known_at != row.happened_at else ""
    return f"{row.n_events:,} of {row.happened_at:%Y-%m-%d}{late}"


def _show_checks(found: Explanation, console: Console) -> None:
    for check in found.checks:
        tables.line(console, f"{'FALSE' if check.untrue else 'true':<5}  {check.name:<13}  {check.says}")
        for untrue in check.untrue:
            tables.line(console, f"       {untrue}")
    for differs in found.differs:
        tables.line(console, f"library {differs}")
    whole = "all of it was made again, and is the same to the bit"
    tables.line(console, whole if found.true else "NOT AS IT WAS: look at what is FALSE before trusting the flag")
