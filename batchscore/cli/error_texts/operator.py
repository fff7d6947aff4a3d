"""What the operator wrote, asked for or named (BS-1xx)."""

from __future__ import annotations

from typing import Final

from batchscore.cli.error_texts.advice import Advice

ADVICE: Final = {
    "spec_invalid": Advice(
        "A misspelt key, a duration such as 7 in place of 7d, a number in quotes or with a comma, a feature that names a "
        "column of no table, or a YAML feature we leave out on purpose (tags, anchors, aliases).",
        "Each mistake is listed with its line and its fix; mend them all, then `batchscore check SPEC`. `batchscore "
        "schema spec` and `batchscore schema feature-set` print JSON Schemas with which an editor marks mistakes while "
        "you type.",
    ),
    "file_missing": Advice(
        "A path in the spec is relative to the spec's own folder, not to where you stand; a mount is absent; the user "
        "that runs batchscore (or a worker on another host) may not read the file.",
        "Look at the path in the message with `ls -l` as that user, on the host that complained. On a cluster every "
        "worker must see inputs and store under the same paths: `batchscore doctor --spec SPEC --scheduler ADDRESS` tries "
        "it.",
    ),
    "secret_missing": Advice(
        "The spec says `url: crm`, and neither BATCHSCORE_URL_CRM nor BATCHSCORE_URL_CRM_FILE is set where it is needed: "
        "in your shell, in the unit or container of the driver, and in that of every worker that freezes a table.",
        "Export the variable with a SQLAlchemy URL (sqlite:////path/to.db), or point …_FILE to a file that holds it, as "
        "systemd and Kubernetes hand out secrets. The URL never belongs into the spec.",
    ),
    "run_unknown": Advice(
        "The id is of another store, a digit was lost in copying, or the run was never opened because its spec was refused.",
        "`batchscore status --store DIR` lists the runs of a store; the run spec's `store:` says where its runs are.",
    ),
    "run_id_invalid": Advice(
        "Something that is no run id stood where one belongs: a spec's name, a path, a plan's hash.",
        "`batchscore status` lists run ids; a shell with completion (`batchscore completion bash`) offers them after a tab.",
    ),
    "plan_changed": Advice(
        "Since the plan was approved or the run began, an input file was replaced, a bundle packed anew, the policy or "
        "feature set edited, or a library upgraded. The message names the part.",
        "Was the change not meant? Put the part back and go on: `batchscore resume RUN`. Was it meant? `batchscore plan "
        "SPEC`, look at it, and run the new hash: what does not depend on the change is reused.",
    ),
    "store_missing": Advice(
        "No run was made with this store yet, or you stand in another folder: --store is relative to where you are, the "
        "spec's `store:` to the spec.",
        "Name the folder that holds batchscore.db with --store, or make it with a first `batchscore run SPEC`.",
    ),
    "report_unwritable": Advice(
        "The folder is not there, is read-only or full, or a folder stands where the page is to be written.",
        "Name another place: `batchscore report RUN --html FILE`; or take the report as JSON, which writes no file: --json.",
    ),
    "plan_unreadable": Advice(
        "`--plan` was given a file that `batchscore plan SPEC --json` did not print, or that was changed afterwards: its hash "
        "does not follow from its parts.",
        "Make it anew: `batchscore plan SPEC --json > plan.json`, look at it, and give that file.",
    ),
    "not_acceptable": Advice(
        "`--accept` names a part that decides what is scored and flagged (an input, a bundle, the feature set, a function, the "
        "policy, dates, limits), or no part at all. Only versions of libraries, and of batchscore, can be accepted.",
        "Put the part back and resume; or let it be another run: `batchscore plan SPEC`, then run that.",
    ),
    "as_of_ahead": Advice(
        "A day that is not over was asked for. Mail of that day that is known later would never count for it.",
        "Name days that are past; a sweep without --as-of takes the last whole day by itself.",
    ),
    "as_of_behind": Advice(
        "A newer as-of of this spec was swept already, perhaps while this one waited. Flags from older evidence must not be put "
        "before reviewers after those from newer.",
        "Nothing needs to be done: the newer sweep scored every account. To see the older day, `batchscore backfill SPEC --from "
        "DAY --to DAY`, which releases nothing.",
    ),
    "nothing_to_retry": Advice(
        "The run set nothing aside, or what it set aside lies in inputs that are as they were: again would end the same.",
        "`batchscore status RUN --rejected` and `--quarantined` show what was set aside and where. Mend that place, then retry.",
    ),
    "file_exists": Advice(
        "The name you gave is taken. batchscore writes over nothing that it did not write itself.",
        "Give another name, or remove the file first.",
    ),
    "column_unclear": Advice(
        "`batchscore init` looked for an account's id or a time, and found several columns that could be it, or none.",
        "Name the column: --key, --created-at, --event-at or --known-at. The message lists those there are.",
    ),
    "run_unfinished": Advice(
        "An Explorer was asked for a run that is still going on, was interrupted, or ended before it decided.",
        "`batchscore resume RUN --store DIR` goes on with it; `batchscore watch RUN --store DIR` shows how far it is.",
    ),
    "account_unknown": Advice(
        "The id is of another kind (text where ids are integers), lost a digit to a float on its way, or came after the run.",
        "Compare it with the ids that the run has: `explorer.accounts().head()`.",
    ),
    "nothing_to_undo": Advice(
        "The run is a backfill without --release, or it stopped before or inside its release: reviewers see none of its flags.",
        "Nothing needs to be done. `batchscore status RUN` shows how far it came; leave it, and it releases nothing.",
    ),
    "flag_unknown": Advice(
        "The account was scored and not flagged, its flag was overtaken before the release, or it stands in another queue.",
        "`batchscore explain RUN --account -` says why an account of a run was not flagged; `batchscore queue` shows the "
        "open flags.",
    ),
    "extra_missing": Advice(
        "batchscore was installed without the extra that --log, --metrics or `cluster certs` needs.",
        "The message has the line that installs it, into the environment in which the command runs.",
    ),
    "telling_failed": Advice(
        "The port of --metrics is taken, mostly by another run that lives; the folder of --log or --metrics-textfile is not "
        "there, or belongs to somebody else.",
        "Give each schedule a port of its own, and name a folder that the user of the unit may write (`ls -ld FOLDER`).",
    ),
    "certs_refused": Advice(
        "The folder holds a CA already, or the CA that should sign is not there or has run out.",
        "`batchscore cluster certs DIR --renew` makes new certificates under the CA that is there; for a new CA name a new "
        "folder, and hand all of it out: certificates of two CAs do not trust each other.",
    ),
}
