"""Flags that are released after their run was (`release_more`) have events of their own; a release numbers only its own."""

from batchscore.store.steps import Steps

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """The view leaves them out of the release's row."""
    steps = Steps(revision)
    steps.view(
        "review_events",
        "SELECT number, number AS upto, at, act, who, queue, account_id, run_id, state FROM events WHERE act <> 'released' "
        "UNION ALL "
        "SELECT events.number - events.n + flags.release_ordinal, events.number, events.at, flags.released_as, events.who, "
        "flags.queue, flags.account_id, flags.run_id, CASE WHEN flags.released_as = 'opened' THEN 'open' ELSE 'overtaken' END "
        "FROM events JOIN flags ON flags.run_id = events.run_id "
        "AND flags.release_ordinal <= events.n WHERE events.act = 'released'",
    )
