"""What a person decided is not replaced either; the desk's indexes; whole microseconds in the view of evidence.

SQLite's REPLACE deletes the row in its way without asking the triggers of deletes: there a row that would take the place of a
person's is refused as it comes. MySQL asks them.
"""

import sqlalchemy as sa

from batchscore.store.steps import Steps

revision = "0012"
down_revision = "0011"

# ruff: noqa: S608 (fixed text, of our own names)
TOUCHED = "('claimed', 'awaiting', 'confirmed', 'cleared', 'inconclusive')"
SAME_ACCOUNT = "queue = NEW.queue AND account_id = NEW.account_id"
IN_THE_WAY = (
    f"EXISTS (SELECT 1 FROM flags WHERE {SAME_ACCOUNT} AND state IN {TOUCHED} "
    "AND (run_id = NEW.run_id OR open_marker = NEW.open_marker){but})"
)
DECISION_THERE = f"EXISTS (SELECT 1 FROM dispositions WHERE {SAME_ACCOUNT} AND run_id = NEW.run_id AND number = NEW.number)"
ITSELF = " AND NOT (queue = OLD.queue AND account_id = OLD.account_id AND run_id = OLD.run_id)"
GUARDS = {
    "flags_of_people_are_not_replaced": (
        "INSERT ON flags",
        IN_THE_WAY.format(but=""),
        "a person touched this flag: it is not replaced",
    ),
    "flags_of_people_are_not_moved_over": (
        "UPDATE OF queue, account_id, run_id, open_marker ON flags",
        IN_THE_WAY.format(but=ITSELF),
        "a person touched this flag: it is not replaced",
    ),
    "dispositions_are_not_replaced": (
        "INSERT ON dispositions",
        DECISION_THERE,
        "a decision is never replaced: another one follows it",
    ),
}
ASKS_TWO = (
    "(flags.second_reviewer OR EXISTS (SELECT 1 FROM flags AS later JOIN runs AS theirs ON theirs.run_id = later.run_id "
    "WHERE later.queue = flags.queue AND later.account_id = flags.account_id AND later.overtaken_by = flags.run_id "
    "AND later.released_as = 'evidence' AND later.second_reviewer AND theirs.released_at IS NOT NULL "
    "AND theirs.undo_begun_at IS NULL))"
)


def upgrade() -> None:
    """Triggers for SQLite, indexes and views for both."""
    steps = Steps(revision)
    if steps.on_mysql:  # a store that was at 0010 early may have it: it makes a release half as long again
        steps.drop_trigger("flags_begin_untouched")
    else:
        for name, (event, forbidden, message) in GUARDS.items():
            steps.trigger(name, event, forbidden=forbidden, says=message)
    steps.create_index("flags_before_reviewers", "flags", ["queue", "open_marker", sa.text("as_of DESC"), "rank", "run_id"])
    steps.create_index("claims_by_end", "claims", ["queue", "ended_at", "until"])
    whole = "CAST(ROUND({} * 1000000) AS " + ("SIGNED)" if steps.on_mysql else "INTEGER)")
    steps.view(
        "review_evidence",
        "SELECT flags.queue, flags.account_id, COALESCE(flags.overtaken_by, flags.run_id) AS run_id, "
        "flags.run_id AS evidence_run, flags.released_as, flags.as_of, flags.rank, flags.score, flags.margin, flags.reasons, "
        f"flags.bundle_digest, {whole.format('runs.released_at')} AS released_at, "
        f"{whole.format('runs.undo_begun_at')} AS withdrawn_at "
        "FROM flags JOIN runs ON runs.run_id = flags.run_id WHERE runs.released_at IS NOT NULL",
    )
    steps.view(
        "review_flags",
        "SELECT flags.queue, flags.account_id, flags.run_id, flags.state, flags.as_of, flags.rank, flags.score, flags.margin, "
        f"flags.reasons, flags.since, flags.group_key, {ASKS_TWO} AS second_reviewer, flags.bundle_digest, flags.opened_at, "
        "flags.closed_at, claims.reviewer AS claimed_by, claims.until AS claimed_until "
        "FROM flags JOIN runs ON runs.run_id = flags.run_id LEFT JOIN claims ON claims.queue = flags.queue "
        "AND claims.account_id = flags.account_id AND claims.run_id = flags.run_id AND claims.ended_at IS NULL "
        "WHERE runs.released_at IS NOT NULL AND flags.state <> 'overtaken' "
        "AND (runs.undo_begun_at IS NULL OR flags.state <> 'open')",
    )
