"""Evidence that says nothing new (`unmoved`) makes no version; evidence that a person decided on stays when its run is undone."""

from batchscore.store.steps import Steps

revision = "0014"
down_revision = "0013"

# ruff: noqa: S608 (fixed text, of our own names)
DECIDED_ON = (
    "EXISTS (SELECT 1 FROM dispositions WHERE dispositions.queue = flags.queue AND dispositions.account_id = flags.account_id "
    "AND dispositions.run_id = COALESCE(flags.overtaken_by, flags.run_id) AND dispositions.evidence_run = flags.run_id)"
)
# A flag that stands in the place of a withdrawn one is evidence on itself, whatever it was before.
SAID_AS = "CASE WHEN flags.overtaken_by IS NULL AND flags.released_as = 'unmoved' THEN 'evidence' ELSE flags.released_as END"


def upgrade() -> None:
    """The view of evidence."""
    steps = Steps(revision)
    whole = "CAST(ROUND({} * 1000000) AS " + ("SIGNED)" if steps.on_mysql else "INTEGER)")
    steps.view(
        "review_evidence",
        "SELECT flags.queue, flags.account_id, COALESCE(flags.overtaken_by, flags.run_id) AS run_id, "
        f"flags.run_id AS evidence_run, {SAID_AS} AS released_as, flags.as_of, flags.`rank`, flags.score, flags.margin, "
        f"flags.reasons, flags.bundle_digest, {whole.format('runs.released_at')} AS released_at, "
        f"CASE WHEN {DECIDED_ON} THEN NULL ELSE {whole.format('runs.undo_begun_at')} END AS withdrawn_at "
        "FROM flags JOIN runs ON runs.run_id = flags.run_id WHERE runs.released_at IS NOT NULL",
    )
