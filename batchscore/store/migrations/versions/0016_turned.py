"""Evidence that an undo turns; who steps in or is kept back at a release; a second reviewer whom decided evidence asked for.

``released_as`` says what a release made of a flag, for ever: the outbox tells it. ``turns`` counts how often undos turned it
since, between evidence and unmoved; an odd number says the other of the two.
"""

import sqlalchemy as sa

from batchscore.store.steps import Steps

revision = "0016"
down_revision = "0015"

# ruff: noqa: S608 (fixed text, of our own names)
OF_FLAG = "dispositions.queue = {0}.queue AND dispositions.account_id = {0}.account_id"
DECIDED_ON = (
    f"EXISTS (SELECT 1 FROM dispositions WHERE {OF_FLAG} "
    "AND dispositions.run_id = COALESCE({0}.overtaken_by, {0}.run_id) AND dispositions.evidence_run = {0}.run_id)"
)
COUNTS = "((CASE WHEN {0}.released_as = 'evidence' THEN 1 ELSE 0 END) <> ({0}.turns & 1))"
ASKS_TWO = (
    "(flags.second_reviewer OR EXISTS (SELECT 1 FROM flags AS later JOIN runs AS theirs ON theirs.run_id = later.run_id "
    "WHERE later.queue = flags.queue AND later.account_id = flags.account_id AND later.overtaken_by = flags.run_id "
    f"AND {COUNTS.format('later')} AND later.second_reviewer AND theirs.released_at IS NOT NULL "
    f"AND (theirs.undo_begun_at IS NULL OR {DECIDED_ON.format('later')})))"
)
# A flag that stands in the place of a withdrawn one is evidence on itself, whatever it was before.
SAYS = (
    "CASE WHEN flags.released_as = 'instead' THEN 'opened' "
    "WHEN flags.overtaken_by IS NULL AND flags.released_as = 'unmoved' THEN 'evidence' "
    f"WHEN flags.overtaken_by IS NULL OR flags.turns = 0 THEN flags.released_as "
    f"WHEN {COUNTS.format('flags')} THEN 'evidence' ELSE 'unmoved' END"
)


def upgrade() -> None:
    """Nothing was turned before."""
    steps = Steps(revision)
    steps.add_column("flags", sa.Column("turns", sa.Integer, nullable=False, server_default="0"))
    steps.add_column("flags", sa.Column("turned_at", sa.BigInteger))
    whole = "CAST(ROUND({} * 1000000) AS " + ("SIGNED)" if steps.on_mysql else "INTEGER)")
    decided_on = DECIDED_ON.format("flags")
    is_own = "flags.overtaken_by IS NULL"
    made = f"CASE WHEN {is_own} THEN 1 WHEN flags.released_as = 'evidence' THEN 1 + flags.turns ELSE flags.turns END"
    gone = f"runs.undo_begun_at IS NOT NULL AND ({is_own} OR {COUNTS.format('flags')}) AND NOT {decided_on}"
    steps.view(
        "review_evidence",
        "SELECT flags.queue, flags.account_id, COALESCE(flags.overtaken_by, flags.run_id) AS run_id, "
        f"flags.run_id AS evidence_run, {SAYS} AS released_as, flags.as_of, flags.`rank`, flags.score, flags.margin, "
        f"flags.reasons, flags.bundle_digest, {whole.format('runs.released_at')} AS released_at, "
        f"CASE WHEN {decided_on} THEN NULL ELSE {whole.format('runs.undo_begun_at')} END AS withdrawn_at, "
        f"({made}) + CASE WHEN {gone} THEN 1 ELSE 0 END AS versions "
        "FROM flags JOIN runs ON runs.run_id = flags.run_id WHERE runs.released_at IS NOT NULL "
        "AND (flags.overtaken_by IS NOT NULL OR flags.state <> 'overtaken')",
    )
    steps.view(
        "review_flags",
        "SELECT flags.queue, flags.account_id, flags.run_id, flags.state, flags.as_of, flags.`rank`, flags.score, flags.margin, "
        f"flags.reasons, flags.since, flags.group_key, {ASKS_TWO} AS second_reviewer, flags.bundle_digest, flags.opened_at, "
        "flags.closed_at, claims.reviewer AS claimed_by, claims.until AS claimed_until "
        "FROM flags JOIN runs ON runs.run_id = flags.run_id LEFT JOIN claims ON claims.queue = flags.queue "
        "AND claims.account_id = flags.account_id AND claims.run_id = flags.run_id AND claims.ended_at IS NULL "
        "WHERE runs.released_at IS NOT NULL AND flags.state <> 'overtaken' "
        "AND (runs.undo_begun_at IS NULL OR flags.state <> 'open')",
    )
    opened = "flags.released_as IN ('opened', 'instead')"
    steps.view(
        "review_events",
        "SELECT number, number AS upto, at, act, who, queue, account_id, run_id, state FROM events WHERE act <> 'released' "
        "UNION ALL "
        "SELECT events.number - events.n + flags.release_ordinal, events.number, events.at, "
        f"CASE WHEN {opened} THEN 'opened' ELSE flags.released_as END, events.who, "
        f"flags.queue, flags.account_id, flags.run_id, CASE WHEN {opened} THEN 'open' ELSE 'overtaken' END "
        "FROM events JOIN flags ON flags.run_id = events.run_id "
        "WHERE events.act = 'released' AND flags.release_ordinal <= events.n",
    )
