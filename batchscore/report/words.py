"""A report's headline: how the run stands, in one or two sentences, for whoever reads nothing else. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from batchscore.digest import KeyDigest
from batchscore.report.model import Report

Tone = Literal["good", "look", "bad"]
_STANDS = {
    "running": "The run is under way",
    "interrupted": "The run was stopped; it can be resumed",
    "held": "The run is held: a person must act",
    "paused": "The run was paused by a person; it goes on once somebody lets it continue",
    "cancelled": "The run was cancelled by a person; it can be resumed",
    "failed": "The run has failed",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Headline:
    """``tone``: good (nothing to do), look (somebody should look), bad (something is wrong)."""

    tone: Tone
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SetAside:
    """Account × as-of that were not scored, over all as-ofs."""

    n_planned: int
    n_scored: int
    n_unscoreable: int
    n_rejected: int
    n_quarantined: int


def set_aside(report: Report) -> SetAside | None:
    """None before there is a proof."""
    if report.proof is None:
        return None
    lines = report.proof.as_ofs

    def n(part: str) -> int:
        return sum(KeyDigest.parse(getattr(line, part)).n for line in lines)

    return SetAside(
        n_planned=n("planned"),
        n_scored=n("scored"),
        n_unscoreable=n("unscoreable"),
        n_rejected=n("rejected"),
        n_quarantined=n("quarantined"),
    )


def headline(report: Report) -> Headline:
    """The most important thing first: a proof that does not close, then a run that is not over, then what was set aside."""
    run, aside = report.run, set_aside(report)
    if report.proof_state == "does not close":
        text = "The proof does not close: some account is not accounted for exactly once. Nothing is released."
        return Headline(tone="bad", text=text)
    if run.state != "finished":
        text = f"{_STANDS.get(run.state, run.state)}: {_progress(report)}."
        return Headline(tone="bad" if run.state == "failed" else "look", text=text)
    if run.undo_begun_at is not None and run.undone_at is None:
        text = "An undo was begun and has not ended: flags that nobody touched are hidden, what they superseded is not all back."
        repeat = next((one for one in report.next if one.startswith("batchscore undo ")), "the undo")
        return Headline(tone="look", text=f"{text} Repeat it: {repeat}")
    if aside is None:
        return Headline(tone="look", text=f"{_release(report)} The proof cannot be made again from what is left of the files.")
    if aside.n_quarantined:
        missing = f"{aside.n_quarantined:,} of {aside.n_planned:,} scores are missing: their partitions were set aside."
        return Headline(tone="look", text=f"{_release(report)} {missing}")
    return Headline(tone="good", text=f"Every account is accounted for, once. {_release(report)}")


def _release(report: Report) -> str:
    flags = report.flags
    if flags is None:
        return "What was flagged can no longer be read."
    if report.run.release == "none":
        return f"Nothing was to be released; {_flags(flags.n_selected)} simulated."
    verb = "is" if flags.n_released == 1 else "are"
    undone = f" The run was undone: {_flags(flags.n_withdrawn)} withdrawn." if report.run.undone_at else ""
    return f"{_flags(flags.n_released)} {verb} before the reviewers.{undone}"


def _flags(n: int) -> str:
    return f"{n:,} flag{'' if n == 1 else 's'}"


def _progress(report: Report) -> str:
    """Of the stage that was last laid out."""
    laid_out = [stage for stage in report.stages if stage.n_partitions is not None]
    if not laid_out:
        return "nothing is laid out yet"
    last = laid_out[-1]
    aside = f", {last.n_quarantined} set aside" if last.n_quarantined else ""
    return f"{last.stage}, {last.n_committed} of {last.n_partitions} partitions committed{aside}"
