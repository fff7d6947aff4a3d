"""The review queue (BS-6xx)."""

from __future__ import annotations

from typing import Final

from batchscore.cli.error_texts.advice import Advice

ADVICE: Final = {
    "flag_absent": Advice(
        "A digit of the account id was lost, the flag is in another queue, its run was never released, or the account was scored "
        "and not selected. For giving a claim back: it ran out, or is somebody else's.",
        "`batchscore queue list --queue NAME` shows what is before the reviewers, `--state STATE` what was decided; `queue show "
        "ACCOUNT` all that there ever was of one account.",
    ),
    "flag_taken": Advice(
        "Two people reached for one flag. A claim is alive until the moment in the message, and comes back by itself then.",
        "Take another: `batchscore queue claim`. Is the other one away? Wait for the moment, or ask them for `queue "
        "release-claim`.",
    ),
    "flag_changed": Advice(
        "Between your look and your decision a run selected the account again, a run whose evidence you saw was undone, or the "
        "flag itself was withdrawn. The message says which, and what is new.",
        "`batchscore queue show ACCOUNT`, and decide with the version it names. A decision is never taken for something that the "
        "person did not see.",
    ),
    "flag_decided": Advice(
        "Somebody was first, or the account is decided on twice in one file. The message names who, when and what.",
        "Leave it, or look at it again and put another decision beside that one with `--correct`: both stay on record.",
    ),
    "second_reviewer": Advice(
        "Flags of a protected tier (staff, paying, role accounts) are settled by two names. The first decision makes such a flag "
        "`awaiting`; the second must be another person's, and where the two differ the flag is inconclusive.",
        "Leave it to a colleague: `batchscore queue list --state awaiting` shows what waits for one.",
    ),
    "dispositions_invalid": Advice(
        "A row names no account or no known word, a flag that is not there, that somebody else has claimed or decided, or a "
        "version of the evidence that is not the newest.",
        "Each mistake is listed with its row and its fix. Mend the rows, or leave them out, and give the file again: what was "
        "taken from it before is taken once.",
    ),
    "suppression_unknown": Advice(
        "It has ended, was removed by somebody else, or was made in another queue or scope (account, domain, segment).",
        "`batchscore suppress list` shows what holds, by queue; what has ended needs no removal, and stays on record.",
    ),
    "nothing_to_release": Advice(
        "The run is not released yet, was undone, or an undo of it is under way: more of its flags would come alone.",
        "`batchscore status RUN` says how it stands. After an undo a new run decides anew; its reserve is the one to release.",
    ),
    "decision_time": Advice(
        "A column of seconds or milliseconds was taken for microseconds, a local time was written as UTC, or the flag that is "
        "meant is an earlier one of the same account.",
        "Give `decided_at` as a moment with a zone (2026-01-31T06:00:00Z) or as whole microseconds since 1970, name the "
        "flag's run in `run_id`, or leave `decided_at` out: then it is now.",
    ),
}
