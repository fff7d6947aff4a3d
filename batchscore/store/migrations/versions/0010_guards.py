"""What a person decided is theirs: triggers that keep the engine from it; and views for a team's own tools.

What people say of a flag stands in `claims` and `dispositions`. A flag's state may become, or cease to be, a person's only as
those say; and of a flag that a person touched, nothing else changes. Rights do the rest on MySQL: a driver's account has none to
write those two tables.
"""

from batchscore.store.steps import Steps

revision = "0010"
down_revision = "0009"

OF_FLAG = "queue = OLD.queue AND account_id = OLD.account_id AND run_id = OLD.run_id"
# ruff: noqa: S608 (fixed text, of our own names)
# What people's own rows say of the flag: claimed, or what was decided last, or nothing.
SAID = (
    f"CASE WHEN EXISTS (SELECT 1 FROM claims WHERE {OF_FLAG} AND ended_at IS NULL) THEN 'claimed' "
    f"ELSE COALESCE((SELECT state FROM dispositions WHERE {OF_FLAG} ORDER BY number DESC LIMIT 1), 'open') END"
)
TOUCHED = "('claimed', 'awaiting', 'confirmed', 'cleared', 'inconclusive')"
FIXED = (
    "queue", "account_id", "run_id", "as_of", "rank", "score", "margin", "reasons", "bundle_digest", "opened_at",
    "overtaken_by", "released_as", "release_ordinal", "group_key", "since", "second_reviewer",
)  # fmt: skip

MESSAGES = {
    "flags_of_people_stay": "a person touched this flag: it changes only as claims and dispositions say",
    "flags_of_people_are_not_deleted": "a person touched this flag: it is not deleted",
    "flags_begin_untouched": "a flag begins open or overtaken: only people make more of it",
    "dispositions_stay": "a decision is never changed: another one follows it",
    "dispositions_are_not_deleted": "a decision is never deleted",
}

VIEWS = {
    "review_queue": (
        "SELECT flags.*, runs.released_at FROM flags JOIN runs ON runs.run_id = flags.run_id WHERE runs.released_at IS NOT NULL "
        "AND flags.open_marker = 1 AND (runs.undo_begun_at IS NULL OR flags.state <> 'open')"
    ),
    "review_flags": (
        "SELECT flags.queue, flags.account_id, flags.run_id, flags.state, flags.as_of, flags.rank, flags.score, flags.margin, "
        "flags.reasons, flags.since, flags.group_key, flags.second_reviewer, flags.bundle_digest, flags.opened_at, "
        "flags.closed_at, claims.reviewer AS claimed_by, claims.until AS claimed_until "
        "FROM flags JOIN runs ON runs.run_id = flags.run_id LEFT JOIN claims ON claims.queue = flags.queue "
        "AND claims.account_id = flags.account_id AND claims.run_id = flags.run_id AND claims.ended_at IS NULL "
        "WHERE runs.released_at IS NOT NULL AND flags.state <> 'overtaken' "
        "AND (runs.undo_begun_at IS NULL OR flags.state <> 'open')"
    ),
    "review_evidence": (
        "SELECT flags.queue, flags.account_id, COALESCE(flags.overtaken_by, flags.run_id) AS run_id, "
        "flags.run_id AS evidence_run, flags.released_as, flags.as_of, flags.rank, flags.score, flags.margin, flags.reasons, "
        "flags.bundle_digest, runs.released_at * 1000000 AS released_at, runs.undo_begun_at * 1000000 AS withdrawn_at "
        "FROM flags JOIN runs ON runs.run_id = flags.run_id WHERE runs.released_at IS NOT NULL"
    ),
    "review_dispositions": (
        "SELECT queue, account_id, run_id, number, disposition, state, reviewer, decided_at, recorded_at, evidence, "
        "evidence_run, why, source FROM dispositions"
    ),
    "review_events": (
        "SELECT number, number AS upto, at, act, who, queue, account_id, run_id, state FROM events WHERE act <> 'released' "
        "UNION ALL "
        "SELECT events.number - events.n + flags.release_ordinal, events.number, events.at, flags.released_as, events.who, "
        "flags.queue, flags.account_id, flags.run_id, CASE WHEN flags.released_as = 'opened' THEN 'open' ELSE 'overtaken' END "
        "FROM events JOIN flags ON flags.run_id = events.run_id WHERE events.act = 'released'"
    ),
}


def upgrade() -> None:
    """Make triggers and views."""
    steps = Steps(revision)
    on_mysql = steps.on_mysql
    differs = " OR ".join(f"NOT (NEW.{quoted(name)} {'<=>' if on_mysql else 'IS'} OLD.{quoted(name)})" for name in FIXED)
    same = "<=>" if on_mysql else "IS"
    moved = f"(NEW.state = OLD.state AND NOT (NEW.open_marker {same} OLD.open_marker AND NEW.closed_at {same} OLD.closed_at))"
    touched = (
        f"(OLD.state IN {TOUCHED} AND ({differs} OR {moved} OR NEW.state <> ({SAID}))) "
        f"OR (OLD.state NOT IN {TOUCHED} AND NEW.state IN {TOUCHED} AND NEW.state <> ({SAID}))"
    )
    steps.trigger("flags_of_people_stay", "UPDATE ON flags", forbidden=touched, says=MESSAGES["flags_of_people_stay"])
    steps.trigger(
        "flags_of_people_are_not_deleted",
        "DELETE ON flags",
        forbidden=f"OLD.state IN {TOUCHED}",
        says=MESSAGES["flags_of_people_are_not_deleted"],
    )
    if not on_mysql:  # there a trigger on each insert makes a release half as long again; `verify` finds what it would refuse
        steps.trigger(
            "flags_begin_untouched",
            "INSERT ON flags",
            forbidden="NEW.state NOT IN ('open', 'overtaken')",
            says=MESSAGES["flags_begin_untouched"],
        )
    steps.trigger("dispositions_stay", "UPDATE ON dispositions", forbidden="1 = 1", says=MESSAGES["dispositions_stay"])
    steps.trigger(
        "dispositions_are_not_deleted", "DELETE ON dispositions", forbidden="1 = 1", says=MESSAGES["dispositions_are_not_deleted"]
    )
    steps.create_index("events_by_account", "events", ["queue", "account_id"])
    steps.create_index("ix_events_run_id", "events", ["run_id"])
    for name, query in VIEWS.items():
        steps.view(name, query)


def quoted(name: str) -> str:
    """`rank` is a word of SQL; both databases take these quotes."""
    return f"`{name}`"
