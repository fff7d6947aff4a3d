"""How flags look on a terminal: one with its reasons, and one with all that was ever said of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console

from batchscore.desk import QueueEvent, Reviewed
from batchscore.flag import DECIDED, Flag, FlagState
from batchscore.observe import tables
from batchscore.observe.terminal import show_reasons
from batchscore.observe.text import shown_id


def show_queue(flags: Iterable[Reviewed], console: Console) -> None:
    """Flags, best first, each with the reasons of its newest evidence in words; those of a group stand under its name."""
    grouped: dict[tuple[str, str], list[Reviewed]] = {}
    for number, row in enumerate(flags):
        group = row.flag.group
        grouped.setdefault((row.flag.queue, group) if group else ("", str(number)), []).append(row)
    for (queue, group), rows in grouped.items():
        if queue:
            tables.line(console, f"group {group}: {len(rows)} account(s) of {queue}")
        for row in rows:
            _flag(row, console)


def show_story(rows: Sequence[Reviewed], events: Sequence[QueueEvent], console: Console) -> None:
    """Flags of one account, each with its evidence, what changed from one to the next, and decisions; then what happened."""
    for row in rows:
        _flag(row, console)
        before: Flag | None = None
        for one in row.evidence:
            gone = "" if one.withdrawn_at is None else f", withdrawn {one.withdrawn_at:%Y-%m-%d %H:%M} UTC"
            tables.line(
                console,
                f"        evidence {one.number}: run {one.flag.run_id} as of {one.flag.as_of:%Y-%m-%d}, score "
                f"{one.flag.score:.4f}{_moved(before, one.flag)}, released {one.released_at:%Y-%m-%d %H:%M} UTC{gone}"
                + (", and changed nothing" if one.kept else ""),
            )
            before = one.flag
        for said in row.decided:
            why = f": {said.why}" if said.why else ""
            became = "" if said.state.value == said.disposition.value else f" (the flag became {said.state})"
            tables.line(
                console,
                f"        decided {said.decided_at:%Y-%m-%d %H:%M} UTC by {said.by} on version {said.evidence}: "
                f"{said.disposition}{became}{why}",
            )
        if row.state not in DECIDED:
            names = f"--saw {row.version} --run {row.flag.run_id}"
            tables.line(console, f"        version {row.version} of the evidence: a decision names it ({names})")
    for event in events:
        tables.line(console, f"{event.number:>8}  {event.at:%Y-%m-%d %H:%M} UTC  {event.act}  {event.run_id}  {event.who}")


def _moved(before: Flag | None, now: Flag) -> str:
    if before is None:
        return ""
    towards = [{reason.code for reason in flag.reasons if reason.contribution > 0} for flag in (before, now)]
    new, gone = sorted(towards[1] - towards[0]), sorted(towards[0] - towards[1])
    said = [f"{now.score - before.score:+.4f}"]
    said += [f"new reasons {', '.join(new)}"] if new else []
    said += [f"no more {', '.join(gone)}"] if gone else []
    return f" ({'; '.join(said)})"


def _flag(row: Reviewed, console: Console) -> None:
    flag, newest = row.flag, row.newest.flag
    tables.line(
        console,
        f"{flag.rank:>4}  {newest.score:.4f}  account {shown_id(flag.account_id)}  as of {flag.as_of:%Y-%m-%d}  {flag.queue}  "
        f"run {flag.run_id}{_stands(row)}",
    )
    if flag.since:
        tables.line(console, f"        since: {flag.since}")
    show_reasons(newest, console)


def _stands(row: Reviewed) -> str:
    said = []
    if row.claim is not None:
        said.append(f"claimed by {row.claim.by} until {row.claim.until:%Y-%m-%d %H:%M} UTC")
    elif row.state is not FlagState.OPEN:
        said.append(str(row.state))
    if row.needs_second and row.state not in DECIDED:
        said.append("needs a second reviewer" if row.state is not FlagState.AWAITING else "by another than the first")
    if row.version > 1:
        said.append(f"evidence {row.version}")
    return f"  [{', '.join(said)}]" if said else ""
