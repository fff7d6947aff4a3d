"""How plans, runs, holds, proofs, flags and what `doctor` finds look on a terminal. Text from outside is shown as text."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from batchscore.acceptance import Accepted
from batchscore.command import command
from batchscore.deadline import lateness_told
from batchscore.digest import KeyDigest
from batchscore.flag import Flag
from batchscore.hold import HoldRow
from batchscore.observe import tables
from batchscore.observe.text import plain, shown_id
from batchscore.plan import Plan
from batchscore.ports import FlagRow, RunRow, StageRow
from batchscore.report.proof import Proof

MAX_FINDINGS = 30
_BLOCK = 1 << 10
_WORDS = frozenset({"does", "spec", "state", "digest or version"})  # columns of text


def show_plan(plan: Plan, console: Console) -> None:
    """The stages a run would walk, what is pinned, and what is only estimated."""
    spec = plan.spec
    as_ofs = spec.as_ofs()
    many = f" … {as_ofs[-1]:%Y-%m-%d} ({len(as_ofs)} dates)" if len(as_ofs) > 1 else ""
    tables.line(console, f"plan {plan.digest[:12]} of {spec.name}: as of {as_ofs[0]:%Y-%m-%d}{many}")
    stages = tables.table("stage", "does", "partitions", "rows", "bytes", words=_WORDS)
    for stage in plan.stages:
        stages.add_row(
            stage.stage,
            tables.text(stage.does),
            tables.number(stage.n_partitions),
            tables.number(stage.n_rows),
            _bytes(stage.n_bytes),
        )
    console.print(stages)
    bounds = [
        f"score ≥ {spec.policy.threshold}" if spec.policy.threshold is not None else "",
        f"at most {spec.policy.budget:,} per as-of" if spec.policy.budget is not None else "",
    ]
    released = "the last as-of is released to it" if spec.release == "latest" else "nothing is released"
    tables.line(console, f"policy: queue {spec.policy.queue}, {' and '.join(bound for bound in bounds if bound)}; {released}")
    pinned = tables.table("pinned", "digest or version", words=_WORDS)
    for name, value in sorted(plan.pinned.items()):
        pinned.add_row(tables.text(name), tables.text(value if len(value) <= 20 else value[:12]))
    console.print(pinned)
    if plan.passed_over:
        shown = ", ".join(plan.passed_over[:5])
        tables.line(console, f"passed over {len(plan.passed_over)} hidden or temporary file(s): {shown}")


def show_runs(runs: Sequence[RunRow], console: Console) -> None:
    """Runs, the newest first."""
    table = tables.table("run", "spec", "state", "as of", "opened", "released", words=_WORDS)
    for row in runs:
        released = f"{row.released_at:%Y-%m-%d %H:%M}" if row.released_at else "–"
        released += ", undone" if row.undone_at else ", undo unfinished" if row.undo_begun_at else ""
        table.add_row(
            row.run_id,
            tables.text(row.name),
            row.stands,
            f"{row.plan.spec.as_ofs()[-1]:%Y-%m-%d}",
            f"{row.created_at:%Y-%m-%d %H:%M}",
            released,
        )
    console.print(table)


def show_stages(row: RunRow, stages: Sequence[StageRow], console: Console) -> None:
    """One run: its state, and each stage's progress with rate and ETA."""
    tables.line(console, f"{row.run_id} of {row.name}: {row.stands}, epoch {row.epoch}")
    if row.undone_at is not None:
        tables.line(console, f"undone {row.undone_at:%Y-%m-%d %H:%M} UTC by {row.undone_by}: {row.undone_why}")
    elif row.undo_begun_at is not None:
        begun = f"{row.undo_begun_at:%Y-%m-%d %H:%M} UTC by {row.undone_by}: {row.undone_why}"
        tables.line(console, f"UNDO UNFINISHED, begun {begun}")
        again = command("undo", row.run_id, row.plan.spec.store, "--apply --why TEXT")
        tables.line(console, f"next: {again} goes on with it")
    if row.request is not None:
        seen = "; its driver has not seen it yet" if row.request.seen_at is None and row.request.met_at is None else ""
        tables.line(console, f"{row.request.told}{seen}")
    if row.why and not (row.request is not None and row.why.startswith(row.request.told)):
        tables.line(console, f"{'waiting' if row.state == 'running' else 'why'}: {row.why}")
    if row.deadline_at is not None:
        ends_at = row.finished_at or row.expected_at
        plain_deadline = f"deadline {row.deadline_at:%Y-%m-%d %H:%M} UTC"
        told = lateness_told(row.deadline_at, ends_at, over=row.finished_at is not None) if ends_at else plain_deadline
        since = f", told first at {row.late_since:%H:%M} UTC" if row.late_since is not None else ""
        tables.line(console, told + since)
    if row.held_back_s:
        lag = f"; replicas at most {row.worst_lag_s:,.0f} s behind" if row.worst_lag_s is not None else ""
        tables.line(console, f"held back {row.held_back_s:,.0f} s so far for a live source{lag}")
    table = tables.table("stage", "partitions", "quarantined", "rows", "rows/s", "ETA", words=_WORDS)
    for stage in stages:
        table.add_row(
            stage.stage,
            f"{stage.n_committed + stage.n_quarantined} of {stage.n_partitions}",
            tables.number(stage.n_quarantined),
            f"{stage.n_rows_committed:,} of {stage.n_rows:,}",
            *_pace(stage),
        )
    console.print(table)


def show_accepted(accepted: Sequence[Accepted], console: Console) -> None:
    """What was accepted of a run that its plan pins otherwise, or that differed from the approved plan."""
    for one in accepted:
        mixed = "; what was committed before was made with the other" if one.mixed else "; the whole run was made with it"
        tables.line(console, f"accepted: {one.told}{mixed}")


def show_holds(holds: Sequence[HoldRow], console: Console) -> None:
    """What a run was held for, the table that shows why, and who approved it."""
    for held in holds:
        because = f": {held.approved_because}" if held.approved_because else ""
        stands = f"approved by {held.approved_by}{because}" if held.approved_at else "not approved"
        tables.line(console, f"held for its {held.subject} at {held.held_at:%Y-%m-%d %H:%M}; {stands}")
        table = tables.table("of", "day", "n", "usual", "what", words=frozenset({"day", "what"}))
        for finding in held.findings[:MAX_FINDINGS]:
            day = f"{finding.day}" if finding.day else "–"
            table.add_row(tables.text(finding.of), day, tables.number(finding.n), finding.usual, tables.text(finding.what))
        console.print(table)
        if len(held.findings) > MAX_FINDINGS:
            tables.line(console, f"{len(held.findings) - MAX_FINDINGS} more are not shown: status {held.run_id} --json has all")


def _pace(stage: StageRow) -> tuple[str, str]:
    """Rows/s, and the time left at that pace."""
    rate, left = stage.rows_per_s, stage.eta_s
    return "–" if rate is None else f"{rate:,.0f}", "done" if stage.is_over else "–" if left is None else f"{left:,.0f} s"


def show_proof(proof: Proof, console: Console) -> None:
    """Planned = scored + unscoreable + rejected + quarantined, as key digests: the number of keys, and their digest."""
    tables.line(
        console,
        f"proof: {'closes' if proof.closes else 'DOES NOT CLOSE'}; "
        "planned = scored + unscoreable + rejected + quarantined, by key digest",
    )
    table = tables.table("as of", "planned", "scored", "unscoreable", "rejected", "quarantined", "key digest", words=_WORDS)
    for line in proof.as_ofs:
        parts = [
            f"{KeyDigest.parse(part).n:,}"
            for part in (line.planned, line.scored, line.unscoreable, line.rejected, line.quarantined)
        ]
        table.add_row(f"{line.as_of:%Y-%m-%d}", *parts, line.planned.partition(":")[2][:12] + (" =" if line.closes else " ≠"))
    console.print(table)
    tables.line(console, f"rows rejected on reading: {proof.n_rows_rejected:,}; events of unknown accounts: {proof.n_orphans:,}")


def show_flags(flags: Sequence[FlagRow], console: Console) -> None:
    """Flags, best first, each with its reasons in words."""
    for row in flags:
        flag = row.flag
        tables.line(
            console,
            f"{flag.rank:>4}  {flag.score:.4f}  account {shown_id(flag.account_id)}  "
            f"as of {flag.as_of:%Y-%m-%d}  {flag.queue}  run {flag.run_id}",
        )
        show_reasons(flag, console)


def show_reasons(flag: Flag, console: Console) -> None:
    """A flag's reasons, those towards abuse with a plus."""
    for reason in flag.reasons:
        sign = "+" if reason.contribution > 0 else "−"
        tables.line(console, f"        {sign} {reason.sentence}  ({reason.code} {reason.contribution:+.2f})")


def show_diagnosis(findings: Sequence[tuple[str, str, str, str]], console: Console) -> None:
    """Findings as (check, level, found, remedy), one line each, and a line for the remedy of what is not well."""
    wide = max(len(check) for check, *_ in findings)
    for check, level, found, remedy in findings:
        style = {"ok": "green", "warn": "yellow", "fail": "bold red"}[level]
        console.print(Text(f"{level:<4}", style=style), Text(plain(f"  {check:<{wide}}  {found}")), soft_wrap=True, sep="")
        if remedy and level != "ok":
            tables.line(console, f"{'':<{wide + 8}}→ {remedy}")
    counts = [sum(level == each for _, level, *_ in findings) for each in ("fail", "warn", "ok")]
    tables.line(console, f"{counts[0]} failed, {counts[1]} warned, {counts[2]} ok")


def _bytes(value: int | None) -> str:
    if value is None:
        return "–"
    size = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < _BLOCK:
            return f"{size:,.0f} {unit}"
        size /= _BLOCK
    return f"{size:,.1f} TiB"
