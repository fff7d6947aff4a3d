"""Running, committing, releasing (BS-4xx): the ledger, the databases, what holds a run."""

from __future__ import annotations

from typing import Final

from batchscore.cli.error_texts.advice import Advice

ADVICE: Final = {
    "commit_conflict": Advice(
        "Two drivers or two attempts reached the ledger at the same time. One of them won, whole.",
        "Nothing is lost: `batchscore status RUN` shows what stands, `batchscore resume RUN` goes on from there.",
    ),
    "commit_unknown": Advice(
        "The connection was cut between a COMMIT and its answer, and the server has not come back to be asked.",
        "`batchscore resume RUN` asks the ledger first: what was committed is not done again, and what was not, is.",
    ),
    "fenced": Advice(
        "This driver slept or was cut off longer than its lease, and a newer driver took the run.",
        "Let this one end; it has written nothing since. Follow the new one with `batchscore watch RUN`.",
    ),
    "run_taken": Advice(
        "Another driver is at work on this run: a second terminal, a cron job, or one on a host that died a moment ago.",
        "Follow it with `batchscore watch RUN`. If its host is dead, wait a minute until the lease has run out and resume.",
    ),
    "nondeterministic": Advice(
        "Two attempts at one partition gave different bytes: hosts with different libraries or processors, failing "
        "memory, or an input that changed between the two.",
        "`batchscore doctor --scheduler ADDRESS` compares the hosts. Take the odd one out of the cluster, then run with "
        "`--again`.",
    ),
    "worker_lost": Advice(
        "A worker was killed (memory, by the kernel or the nanny), its host went away, or the partition crashes a library.",
        "Nothing at first: the partition is tried elsewhere, at last alone in a child process. If many are lost, use "
        "fewer workers or a smaller `partition_rows`: `batchscore doctor` compares memory with the number of workers.",
    ),
    "attempt_failed": Advice(
        "An exception nobody foresaw, on a worker. Its type and place are in the message, its text is not: it might quote a row.",
        "Look into that worker's log. If the input is sound it is a bug in batchscore: report the type and the place.",
    ),
    "proof_failed": Advice(
        "Some account was lost, doubled or swapped between freezing and scoring. This must never be, so nothing was released.",
        "`batchscore status RUN` shows which as-of does not close. Keep the store, report it, and run with `--again`.",
    ),
    "interrupted": Advice(
        "Ctrl-C, SIGTERM (a deploy, a node that drains), or a scheduler that went away.",
        "`batchscore resume RUN` goes on; everything committed is kept.",
    ),
    "partition_quarantined": Advice(
        "A partition failed three times, or for a reason that no second try would change: the message names it, often a "
        "bad file.",
        "`batchscore status RUN` lists what was set aside and why. Mend the input, then `batchscore run SPEC --again`: "
        "the rest is reused.",
    ),
    "store_busy": Advice(
        "Another process holds the database's lock: a backup, an open sqlite3 shell, or a second driver on a slow disk.",
        "`fuser STORE/batchscore.db` shows who; end it and resume. Keep the store on a local disk, never on NFS.",
    ),
    "database_error": Advice(
        "A wrong URL, a missing right, a read-only server, a file that cannot be opened; or a statement the database cannot do.",
        "`batchscore doctor --spec SPEC` tries each database named. The driver's own words are left out: they may quote the URL.",
    ),
    "store_schema": Advice(
        "The store was written by another version of batchscore than this one; or its database holds tables of somebody else.",
        "A newer one: use that version. An older one: the next `batchscore run` migrates it (copy batchscore.db first); on "
        "MySQL the migrator does, with `batchscore db upgrade SPEC`, which goes on where it was cut. Use a database of its own.",
    ),
    "write_failed": Advice(
        "The disk is full, a quota is reached, or the device fails.",
        "Free space (`batchscore clean` shows files no run needs) or mend the disk, then `batchscore resume RUN`.",
    ),
    "run_failed": Advice(
        "The run met something it cannot go on with, before anything reached the queue.",
        "The message names it; `batchscore status RUN` shows how far it came.",
    ),
    "database_away": Advice(
        "A MySQL server that was stopped, killed or failed over, a cut network, or no connection free, for longer than a minute.",
        "Nothing committed is lost: once it answers, `batchscore resume RUN`, or `batchscore db upgrade SPEC` if that was cut.",
    ),
    "source_paused": Advice(
        "Replicas were behind, the server was busy, somebody raised the pause flag, or it was office hours, for longer than "
        "`--max-wait`.",
        "The message says which. Once that is over, `batchscore resume RUN`: ranges that were read are not read again. Limits "
        "stand under `gentle:` of the source in the spec; with others, `batchscore run SPEC` goes on with the same run.",
    ),
    "source_overloaded": Advice(
        "More threads ran on the server at once than `critical_threads_running` allows, by our own reading or by others.",
        "See what the server is busy with (SHOW PROCESSLIST), then `batchscore resume RUN`: ranges that were read are not read "
        "again. With fewer `connections`, under `gentle:` of the source, a run asks for less at a time.",
    ),
    "input_held": Advice(
        "A day of a table that the spec's `gate` watches has no rows or no marker file, was planned before its `lag` was over, "
        "or has far fewer or more rows than its like of the last 28 days. The list names table, day, rows and the usual range.",
        "Is the input late or broken? Mend it, then `batchscore run SPEC` (or `batchscore sweep SPEC`): changed files are a new "
        "plan, and what is whole is reused. Is it right as it is? `batchscore approve RUN --by NAME --reason TEXT`, then "
        "`batchscore resume RUN`. What was approved is not held again in later runs of the spec, unless it gets worse.",
    ),
    "not_held": Advice(
        "The run was approved already, goes on, is over, or was held anew for something else while you looked at it.",
        "`batchscore status RUN` shows how it stands, what it is held for, and who approved what.",
    ),
    "release_held": Advice(
        "The policy declares a `guard`, and the flags in all, of a reason, a segment or a domain, the scores above the "
        "threshold, their drift or a feature that is missing are beyond its limits. The list names each with its usual range.",
        "Nobody sees the flags yet. Is the model or the input wrong? Mend it and run the spec again. Are they right as they are? "
        "`batchscore approve RUN --by NAME --reason TEXT`, then `batchscore resume RUN`. The approval is of this run alone.",
    ),
    "nothing_decided": Advice(
        "`quality` and `threshold` estimate from decisions on released flags, and there is none yet: no run of that name has "
        "released, all were undone, or every flag is still open, claimed or inconclusive.",
        "Is it the name of a spec, or a run id? `batchscore status` lists both. Else decide some first: `batchscore queue "
        "decide`, or `batchscore queue import` what another tool decided.",
    ),
    "run_paused": Advice(
        "Somebody typed `batchscore pause RUN`, perhaps on another host; the message says who, since when and why.",
        "Ask them, or look: `batchscore status RUN`. `batchscore continue RUN` lets it go on: a driver that waits does so by "
        "itself, else `batchscore resume RUN` follows.",
    ),
    "run_cancelled": Advice(
        "Somebody typed `batchscore cancel RUN`, perhaps on another host; the message says who, when and why.",
        "What was committed is kept and reported. `batchscore resume RUN` goes on after all; `batchscore run SPEC --again` "
        "begins a new run, which reuses what was done.",
    ),
    "nothing_to_control": Advice(
        "The run is over or cancelled, or another person asked something of it a moment before you.",
        "`batchscore status RUN` shows how it stands and who asked for what; ask again if it is still what you want.",
    ),
    "run_superseded": Advice(
        "The run was cancelled or failed, and its plan was run again with --again: of a plan only the newest run goes on.",
        "Go on with the newest, which the message names; what the older one committed was reused there, and stays readable.",
    ),
    "errors_held": Advice(
        "An input changed its form, a bundle meets values it was not trained with, a new population has no history yet, or "
        "partitions were quarantined. The list names each class, how many, and how many were allowed.",
        "`batchscore status RUN --rejected` and `--quarantined` show which and why. Mend it and retry, or let the run go on: "
        "`batchscore approve RUN --by NAME --reason TEXT`, then `batchscore resume RUN`.",
    ),
    "statement_wrong": Advice(
        "A bug in batchscore, a table that somebody altered by hand, or a row that stands where a key says that it cannot.",
        "Nothing of that transaction stands. Look at the database's log, and report it with the message. `batchscore doctor` "
        "compares the tables with what they should be.",
    ),
    "row_damaged": Advice(
        "Somebody changed the table `runs` by hand, a copy of the store was cut short, or a newer batchscore wrote the run.",
        "Restore that row from a backup of the store, or use the batchscore that wrote it. Nothing is guessed: what a run pinned "
        "stands in its plan alone.",
    ),
    "audit_key_lost": Advice(
        "`audit.key` in the store's folder was deleted, cut short, or left behind when the folder was moved or restored.",
        "Restore the file of that store from a backup. Nothing is released or undone without it: a new key made in silence would "
        "hide that the accounts of earlier entries can no longer be told. Where no backup has it, its owner may decide to go on: "
        "`(umask 007; openssl rand -hex 32 > STORE/audit.key)`. `verify` then finds the flags withdrawn before untold, rightly.",
    ),
}

EXITS: Final = {
    "commit_conflict": "1; the ledger is whole",
    "commit_unknown": "5: resumable",
    "fenced": "5: the newer driver goes on",
    "nondeterministic": "1: the run stops, nothing is released",
    "worker_lost": "3 if it stays",
    "attempt_failed": "3: after three failures the partition is quarantined",
    "proof_failed": "1: nothing is released",
    "interrupted": "5: resumable",
    "partition_quarantined": "3: done, or ended, with quarantine",
    "store_busy": "5 during a run: resumable; 1 else",
    "database_error": "2 before a run, 5 during one: resumable",
    "write_failed": "2 where the store cannot be made; 5 in the driver, 3 in an attempt: resumable",
    "run_failed": "1",
    "database_away": "2 before a run, 5 during one: resumable",
    "source_paused": "4: held, resumable",
    "source_overloaded": "4: held, resumable",
    "input_held": "4: held, a person must act",
    "release_held": "4: held, a person must act",
    "run_paused": "4: paused, a person lets it continue",
    "run_cancelled": "4: cancelled, a person may resume it",
    "errors_held": "4: held, a person must act",
    "statement_wrong": "1: a bug",
    "row_damaged": "4: a person must act",
}
