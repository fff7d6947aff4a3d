"""An explanation of one account at one as-of of a run, as values. It names the account: whoever asks has its id."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from batchscore.flag import AccountId, Reason
from batchscore.shown import Showable, Shown, ShownTable
from batchscore.values import Value

# How an account stands at an as-of. All but the first have no score.
Outcome = Literal["scored", "rejected", "unscoreable", "outside", "quarantined"]

# What of the policy decided that an account was or was not flagged.
Because = Literal[
    "selected",
    "drawn",
    "reserve",
    "below_threshold",
    "beyond_budget",
    "open_flag",
    "flagged_earlier",
    "withheld",
    "policy",
    "not_scored",
]


class MadeAgain(Value):
    """One thing that was made again and compared. ``untrue``: what differs, in words; empty where it is as it was."""

    name: str
    says: str
    untrue: tuple[str, ...]


class FrozenRow(Value):
    """A frozen row: which file (of the store) holds it where, and the SHA-256 of its values (`frozen_rows.row_digest`).

    Of a rollup ``happened_at`` and ``known_at`` are the beginnings of its grains, and ``n_events`` how many events it holds; of a
    history ``known_at`` is when the row began. ``counts``: it is old enough, and known, and young enough for some window.
    """

    table: str
    file: str
    file_sha256: str
    row_group: int
    row: int
    sha256: str
    happened_at: datetime | None = None
    known_at: datetime | None = None
    n_events: int | None = None
    counts: bool = True


class FeatureSaid(Value):
    """A feature: its value (None: missing), said in its sentence, and what it gave to the margin (None: not of the model)."""

    name: str
    value: float | int | str | None
    sentence: str
    code: str | None
    contribution: float | None


class Selection(Value):
    """What of the policy selected the account, or did not.

    ``place``: among the accounts that could be flagged, best first; of an account with a flag open, the place it would have had.
    ``n_reaching``: how many of those reach the threshold. ``n_blocked``: accounts that could get no flag, since one was open.
    ``last_score``: of the last that was selected. ``more``: further columns of the decision, such as how it was drawn.
    """

    selected: bool
    because: Because
    said: str
    rank: int | None
    place: int | None
    threshold: float | None
    budget: int | None
    n_scored: int
    n_reaching: int
    n_blocked: int
    n_selected: int
    last_score: float | None
    flag_open_since: datetime | None
    released: bool
    more: dict[str, Any]


class Explanation(Showable, Value):
    """All there is to say of an account at an as-of. ``true``: everything was made again and is as it was, to the bit.

    ``features``: the largest contribution first. ``base``: what the model gives everybody; with the contributions it adds up to
    the margin, as float32 sums do. ``differs``: pinned libraries that are other versions here, which may be why a check fails.
    """

    run_id: str
    spec: str
    queue: str
    account_id: AccountId
    as_of: datetime
    outcome: Outcome
    code: str | None  # of a rejection, or a quarantine
    margin: float | None
    score: float | None
    base: float | None
    reasons: tuple[Reason, ...]
    features: tuple[FeatureSaid, ...]
    selection: Selection | None  # None where the decision or the memory cannot be read
    flag_state: str | None  # of the flag of this run; None where it was not released
    rows: tuple[FrozenRow, ...]
    partition: int
    address: str
    digests: dict[str, str]
    differs: tuple[str, ...]
    checks: tuple[MadeAgain, ...]
    true: bool

    def shown(self) -> Shown:
        """How it stands and why, and what each feature gave."""
        facts = [
            ("run", f"{self.run_id} of {self.spec}"),
            ("as of", f"{self.as_of:%Y-%m-%d %H:%M} UTC"),
            ("outcome", self.outcome + (f" ({self.code})" if self.code else "")),
            ("score", "none" if self.score is None else f"{self.score:.6f} (margin {self.margin:+.6f})"),
            ("selection", "unknown" if self.selection is None else self.selection.said),
            ("flag", self.flag_state or "none of this run"),
            ("made again", "the same to the bit" if self.true else "NOT AS IT WAS"),
            *(("not as it was", untrue) for check in self.checks for untrue in check.untrue),
        ]
        rows = [
            ("–" if one.contribution is None else f"{one.contribution:+.4f}", one.code or "", one.sentence)
            for one in self.features
        ]
        features = ShownTable(("gave", "reason", "in words"), rows)
        held = [(row.table, row.file, f"{row.row_group}:{row.row}", row.sha256) for row in self.rows]
        return Shown(f"account {self.account_id!r}", facts, (features, ShownTable(("table", "file", "row", "digest"), held)))
