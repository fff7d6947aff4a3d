"""What `batchscore help BS-NNN` says of each error: what brings it about, and what to do. Imported by that command alone.

The catalogue (`errors.CATALOGUE`) has number and meaning; here is what somebody needs at three in the morning.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from batchscore.errors import CATALOGUE

_BEFORE: Final = "2: refused, nothing was written"
_ANYWHERE: Final = "2 when a plan finds it; 3 when an attempt does, and its partition alone is quarantined"


class Advice(NamedTuple):
    """Common causes, most likely first; and what to do, with the command to type."""

    causes: str
    remedy: str


ADVICE: Final[dict[str, Advice]] = {
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
    "store_missing": Advice(
        "No run was made with this store yet, or you stand in another folder: --store is relative to where you are, the "
        "spec's `store:` to the spec.",
        "Name the folder that holds batchscore.db with --store, or make it with a first `batchscore run SPEC`.",
    ),
    "report_unwritable": Advice(
        "The folder is not there, is read-only or full, or a folder stands where the page is to be written.",
        "Name another place: `batchscore report RUN --html FILE`; or take the report as JSON, which writes no file: --json.",
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
    "scheduler_uncertified": Advice(
        "A tls:// scheduler, and Dask's configuration of this driver names no CA or client's certificate, or files that this "
        "user may not read.",
        "`batchscore cluster certs` makes them; the DASK_DISTRIBUTED__COMM__TLS__… variables of the message name them, as the "
        "units in jobs/systemd do.",
    ),
    "metrics_open": Advice(
        "--metrics names an address that is not 127.0.0.1 or ::1, such as 0.0.0.0 in a container.",
        "Scrape from the same host; or say --metrics-off-host, where a firewall or a network policy lets only Prometheus in. "
        "Metrics hold counts and names of specs and stages, nothing of an account.",
    ),
    "nothing_to_retry": Advice(
        "The run set nothing aside, or what it set aside lies in inputs that are as they were: again would end the same.",
        "`batchscore status RUN --rejected` and `--quarantined` show what was set aside and where. Mend that place, then retry.",
    ),
    "file_exists": Advice(
        "The name you gave is taken. batchscore writes over nothing that it did not write itself.",
        "Give another name, or remove the file first.",
    ),
    "nothing_to_undo": Advice(
        "The run is a backfill without --release, or it stopped before or inside its release: reviewers see none of its flags.",
        "Nothing needs to be done. `batchscore status RUN` shows how far it came; leave it, and it releases nothing.",
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
    "flag_unknown": Advice(
        "The account was scored and not flagged, its flag was overtaken before the release, or it stands in another queue.",
        "`batchscore explain RUN --account -` says why an account of a run was not flagged; `batchscore queue` shows the "
        "open flags.",
    ),
    "not_parquet": Advice(
        "An export was cut off or is still being written, a CSV or a _SUCCESS file lies in the folder, the disk was full, "
        "or the file's columns are encrypted.",
        "Export the named files again, to a name that begins with `_` or `.`, and rename them when they are whole: such "
        "names are passed over. Move what is no input out of the folder.",
    ),
    "parquet_codec": Advice(
        "The file was written with a codec this pyarrow was built without (LZO, for one).",
        "Write it again with zstd, which reads everywhere.",
    ),
    "column_missing": Advice(
        "The column was renamed upstream, has another case, or stands in some of the files only; or the feature set has a "
        "typing error. The message names the nearest column there is.",
        "Mend the name in the feature set, or export the column again in every file. Nothing is filled in with nulls, "
        "because a model takes a null for an honest 'missing'.",
    ),
    "column_duplicate": Advice(
        "A join upstream kept the key of both sides, or two columns were given one name.",
        "Keep one of the two where the file is made.",
    ),
    "column_type": Advice(
        "Text where a number is declared, a nested column (struct, list), a number without a unit where a time is "
        "declared, or a table of SQLite that mixes types in one column.",
        "Cast the column where it is made. For a time in numbers say its unit: `event_at: {column: ts, unit: ms}`.",
    ),
    "type_drift": Advice(
        "One export wrote integers and a later one floats or text, often because a null made pandas change the type.",
        "Write all files with one type; pandas' nullable Int64 or Arrow's int64 keep integers exact beside nulls.",
    ),
    "id_physical_type": Advice(
        "pandas turns integers into floats as soon as one is null, and a float cannot tell 2^53 from 2^53+1: two accounts "
        "would become one, and the wrong person be flagged.",
        "Export the ids again as integers or as text, from where they are still exact. Casting the floats back does not "
        "bring the lost digits back.",
    ),
    "id_kind": Advice(
        "The feature set says `account_id: string` and the store was made for integers, or the other way round.",
        "Use one store per kind: set `store:` in the spec to a new folder. Kinds are never mixed in one review queue.",
    ),
    "id_too_large": Advice(
        "SQLite has signed 64-bit integers, and an id is above 2^63−1.",
        "Declare `account_id: string` in the feature set, use a new store, and give the ids as text.",
    ),
    "duplicate_id": Advice(
        "The accounts table has history rows, a join doubled some accounts, or a folder holds yesterday's export beside today's.",
        "Leave one row for each account: keep one export in the folder, or name a view that picks the newest row. If the rows "
        "say from when to when they hold, declare `accounts.history` in the feature set.",
    ),
    "history_overlap": Advice(
        "A row of the history was never ended when the account's next one began, a join doubled rows, or a folder holds "
        "yesterday's export beside today's.",
        "End each row at or before the account's next one begins (`valid_to` is not included; null means that it still holds).",
    ),
    "label_conflict": Advice(
        "A labels file says 0 and 1 of one account for the same moment: a decision was taken back, or two exports were joined.",
        "Keep the label that holds. If the file says when each was decided (`decided_at`), both may stay: the latest counts.",
    ),
    "naive_timestamp": Advice(
        "A timestamp column carries no zone, so that its meaning changes with the clock of whoever wrote it.",
        "Say what it was written in: `created_at: {column: created_at, zone: UTC}` (or Europe/Berlin).",
    ),
    "timestamp_range": Advice(
        "A wrong unit: seconds read as milliseconds or nanoseconds give years such as 1970 or 52000.",
        "Correct `unit:` of that column in the feature set (s, ms, us or ns).",
    ),
    "path_escapes_root": Advice(
        "A symlink in an input folder leads elsewhere, a path holds `..`, or the demo was pointed at a folder that holds "
        "other things.",
        "Copy the files in, or name the folder they are really in. For the demo choose an empty folder: `--folder demo-2`.",
    ),
    "input_digest_mismatch": Advice(
        "A file was replaced, appended to or touched after the plan; or a disk or network changed its bytes.",
        "Restore the file and `batchscore resume RUN`, or plan again. Exports should write new names, never over old "
        "ones. If nobody touched it, distrust the disk: an unexpected digest is how silent corruption shows.",
    ),
    "input_empty": Advice(
        "The folder is one level off, the export did not run, or all names begin with `_` or `.`.",
        "Correct `path:` in the spec. An empty table is fine as a Parquet file with no rows; a folder without a file is not.",
    ),
    "memory_limit": Advice(
        "A row group of hundreds of millions of bytes, very long text, or a file that decodes to far more than it says (a bomb).",
        "Write the file with row groups of about 100,000 rows. Do not raise limits for a file you do not trust.",
    ),
    "invalid_utf8": Advice(
        "Raw bytes of mail headers were written into a text column without decoding.",
        "Decode with replacement where the file is made, or declare the column as bytes and leave it out of features.",
    ),
    "sum_overflow": Advice(
        "A feature sums a column of huge integers (nanoseconds, or 64-bit ids), beyond what 64 bits hold.",
        "Sum a column in a coarser unit, or count distinct values in place of summing ids.",
    ),
    "table_missing": Advice(
        "A misspelt table, another schema than the URL's, or a user who may not see it.",
        "Check `table:` in the spec against the database with the same user; the message names the nearest table.",
    ),
    "input_corrupt": Advice(
        "A bit flipped on disk or on the way, or the writer died half-way. The page's checksum found it.",
        "Restore that file from its source and resume. Look at the disk's health if it happens twice.",
    ),
    "python_feature": Advice(
        "A feature's function cannot be imported here or on a worker, is of no installed distribution, looks at other rows "
        "(a mean, a rank, a cumulated sum), keeps state between calls, raises on an unusual value, or is of another version "
        "than the one that was planned.",
        "`batchscore features check FILE` calls it on rows made up for it. Let a row's value depend on that row alone, and "
        "install one version of its distribution everywhere.",
    ),
    "leak_found": Advice(
        "A feature as of a date changed when rows that could only be known later were changed, removed or added: a fault in "
        "batchscore, or a Python function that keeps what it saw.",
        "Nothing of the run was released. Keep its store, look at the feature that the message names, and report it.",
    ),
    "bundle_invalid": Advice(
        "There is no bundle yet at the spec's `bundles:` path, it was copied without its manifest, something already "
        "stands where a new one is to be packed, or a feature has no reason sentence.",
        "Copy the whole folder from where it was packed, or pack the trained model into a new folder: "
        "`batchscore.models.pack.pack_bundle` in Python; its docstring says what it wants.",
    ),
    "bundle_digest": Advice(
        "A file of the bundle was edited, or a copy went wrong (a tool that rewrites line ends, for one).",
        "Copy the whole folder again from where it was packed. To change a model, train and pack a new bundle.",
    ),
    "model_format": Advice(
        "A pickle, a joblib file, XGBoost's old binary format, a text dump or a LightGBM model was given. Pickles are "
        "never opened: they run code.",
        "In the environment that trained it: `booster.save_model('model.ubj')`, then pack that file.",
    ),
    "model_version": Advice(
        "The model was saved by a newer XGBoost, whose files an older one may read wrongly without a word.",
        "Install that version here and on every worker, or save the model with the version that scores.",
    ),
    "model_objective": Advice(
        "The model was trained with another objective than binary:logistic (a ranker, a regressor, a custom loss).",
        "Train with `objective='binary:logistic'`: a threshold needs a probability.",
    ),
    "feature_contract": Advice(
        "The feature set was edited after the model was trained, or the bundle is of another feature set. Equal names may "
        "hold other values: a window of 7d in place of 28d, say.",
        "Use the feature set the bundle was trained with (its digest is in the message and in the bundle's manifest), or "
        "train and pack again with this one.",
    ),
    "margin_mismatch": Advice(
        "The features of a flagged account, made a second time, gave another margin: its snapshot changed, or hosts "
        "differ in libraries or in hardware arithmetic.",
        "Run `batchscore doctor --scheduler ADDRESS` to compare the hosts, then the run again with `--again`. If it "
        "stays, report it: it must not be.",
    ),
    "score_invalid": Advice(
        "The model gives NaN or values outside 0 to 1 for many rows; a broken calibration, or inputs it never saw.",
        "Score the bundle's golden rows (`batchscore doctor --spec SPEC`), then look at the features of the named partition.",
    ),
    "golden_mismatch": Advice(
        "This machine does not reproduce what the model gave when it was packed: another XGBoost, or other arithmetic.",
        "Install the library versions of the lock file, or pack the model again on the kind of machine that scores.",
    ),
    "bundle_missing": Advice(
        "The model was not trained or not packed yet, or `bundles:` in the spec names another folder.",
        "`batchscore features build SPEC --as-of DATE --out frame.parquet --labels FILE` writes what to train on; train (the "
        "train.py that `batchscore init` writes is a start), pack the model under the name in the spec: `batchscore bundle "
        "pack`, and `batchscore check SPEC`.",
    ),
    "feature_limit": Advice(
        "A source stopped, a unit changed, or the accounts of this partition really are unlike those the model knows.",
        "Look at the source of the named features; mend it and run again, or pack with other limits: `batchscore bundle pack`.",
    ),
    "model_crash": Advice(
        "A file that XGBoost loads, and that no tree of XGBoost's would hold: damaged before it was packed, or made to do harm.",
        "Do not use it. Train or save the model again where it was made, and pack that file: `batchscore bundle pack`.",
    ),
    "commit_conflict": Advice(
        "Two drivers or two attempts reached the ledger at the same time. One of them won, whole.",
        "Nothing is lost: `batchscore status RUN` shows what stands, `batchscore resume RUN` goes on from there.",
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
    "input_held": Advice(
        "A day of a table that the spec's `gate` watches has no rows or no marker file, was planned before its `lag` was over, "
        "or has far fewer or more rows than its like of the last 28 days. The list names table, day, rows and the usual range.",
        "Is the input late or broken? Mend it, then `batchscore run SPEC` (or `batchscore sweep SPEC`): changed files are a new "
        "plan, and what is whole is reused. Is it right as it is? `batchscore approve RUN --by NAME --reason TEXT`, then "
        "`batchscore resume RUN`. What was approved is not held again in later runs of the spec, unless it gets worse.",
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
    "not_held": Advice(
        "The run was approved already, goes on, is over, or was held anew for something else while you looked at it.",
        "`batchscore status RUN` shows how it stands, what it is held for, and who approved what.",
    ),
    "audit_key_lost": Advice(
        "`audit.key` in the store's folder was deleted, cut short, or left behind when the folder was moved or restored.",
        "Restore the file of that store from a backup. Nothing is released or undone without it: a new key made in silence would "
        "hide that the accounts of earlier entries can no longer be told. Where no backup has it, its owner may decide to go on: "
        "`(umask 007; openssl rand -hex 32 > STORE/audit.key)`. `verify` then finds the flags withdrawn before untold, rightly.",
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
    "database_away": Advice(
        "A MySQL server that was stopped, killed or failed over, a cut network, or no connection free, for longer than a minute.",
        "Nothing committed is lost: once it answers, `batchscore resume RUN`.",
    ),
    "commit_unknown": Advice(
        "The connection was cut between a COMMIT and its answer, and the server has not come back to be asked.",
        "`batchscore resume RUN` asks the ledger first: what was committed is not done again, and what was not, is.",
    ),
    "database_setup": Advice(
        "A right is not granted, a table is not InnoDB, a column's type or collation would round or fold values, or a limit of "
        "the server is too small; or the URL's ssl_ca does not vouch for the server's certificate and host.",
        "Each finding comes with the statement that mends it, for whoever may run it.",
    ),
    "key_not_indexed": Advice(
        "The declared key is neither the primary key nor the first column of an index, so every page would read the whole table.",
        "Run the CREATE INDEX of the message on a quiet hour, or name another key in the feature set.",
    ),
    "store_schema": Advice(
        "The store was written by another version of batchscore than this one.",
        "A newer one: use that version. An older one: the next `batchscore run` migrates it (copy batchscore.db first); on "
        "MySQL the migrator does, with `batchscore db upgrade SPEC`.",
    ),
    "write_failed": Advice(
        "The disk is full, a quota is reached, or the device fails.",
        "Free space (`batchscore clean` shows files no run needs) or mend the disk, then `batchscore resume RUN`.",
    ),
    "run_failed": Advice(
        "The run met something it cannot go on with, before anything reached the queue.",
        "The message names it; `batchscore status RUN` shows how far it came.",
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
    "nothing_to_control": Advice(
        "The run is over or cancelled, or another person asked something of it a moment before you.",
        "`batchscore status RUN` shows how it stands and who asked for what; ask again if it is still what you want.",
    ),
    "scheduler_unreachable": Advice(
        "The scheduler is not started, the address or port is wrong, a firewall is between, or one side speaks TLS and "
        "the other does not.",
        "Start it (`dask scheduler`), or leave --scheduler out to use this machine. `batchscore doctor --scheduler "
        "ADDRESS` tries again.",
    ),
    "scheduler_insecure": Advice(
        "The address is on another host and begins with tcp://. Whoever reaches a Dask scheduler runs code on its workers.",
        "Use tls:// with certificates in Dask's configuration (distributed.comm.tls). `--insecure` accepts the risk, for "
        "a network you own.",
    ),
    "version_skew": Advice(
        "Workers were deployed from another lock file: another python, numpy, pandas, pyarrow, xgboost or batchscore.",
        "Install the same lock file on every host, or use one image for driver and workers. The list names each difference.",
    ),
    "stalled": Advice(
        "A worker hangs (a dead mount, a stopped process, a library that waits for a lock), the partition is larger than the "
        "limit allows for, or a shared cluster is busy with others' tasks.",
        "The run goes on by itself; `stalls/` in the store's folder says where workers stood. Attempts that need longer: a "
        "smaller `partition_rows`, or `--stall-limit MINUTES`.",
    ),
    "no_workers": Advice(
        "The scheduler is up and has no workers yet, or they all died (look for memory kills).",
        "Start some: `dask worker ADDRESS --nthreads 1 --nworkers 4`, then run again.",
    ),
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
    "decision_time": Advice(
        "A column of seconds or milliseconds was taken for microseconds, a local time was written as UTC, or the flag that is "
        "meant is an earlier one of the same account.",
        "Give `decided_at` as a moment with a zone (2026-01-31T06:00:00Z) or as whole microseconds since 1970, name the "
        "flag's run in `run_id`, or leave `decided_at` out: then it is now.",
    ),
    "nothing_to_release": Advice(
        "The run is not released yet, was undone, or an undo of it is under way: more of its flags would come alone.",
        "`batchscore status RUN` says how it stands. After an undo a new run decides anew; its reserve is the one to release.",
    ),
    "suppression_unknown": Advice(
        "It has ended, was removed by somebody else, or was made in another queue or scope (account, domain, segment).",
        "`batchscore suppress list` shows what holds, by queue; what has ended needs no removal, and stays on record.",
    ),
}

_EXITS: Final = {
    "id_too_large": "2: refused; found while a run reads its accounts, the run ends and nothing is released",
    "duplicate_id": "2: refused; found while a run reads its accounts, the run ends and nothing is released",
    "history_overlap": "2: refused; found while a run reads its accounts, the run ends and nothing is released",
    "margin_mismatch": "3: the partition of reasons is quarantined, nothing is released",
    "score_invalid": "3: the partition is quarantined",
    "commit_conflict": "1; the ledger is whole",
    "fenced": "5: the newer driver goes on",
    "run_taken": _BEFORE,
    "nondeterministic": "1: the run stops, nothing is released",
    "worker_lost": "3 if it stays",
    "attempt_failed": "3: after three failures the partition is quarantined",
    "proof_failed": "1: nothing is released",
    "interrupted": "5: resumable",
    "input_held": "4: held, a person must act",
    "release_held": "4: held, a person must act",
    "nothing_decided": _BEFORE,
    "not_held": _BEFORE,
    "partition_quarantined": "3: done, or ended, with quarantine",
    "store_busy": "5 during a run: resumable; 1 else",
    "database_error": "2 before a run, 5 during one: resumable",
    "store_schema": _BEFORE,
    "write_failed": "5 in the driver, 3 in an attempt: resumable",
    "run_failed": "1",
    "database_away": "2 before a run, 5 during one: resumable",
    "commit_unknown": "5: resumable",
    "database_setup": _BEFORE,
    "source_paused": "4: held, resumable",
    "errors_held": "4: held, a person must act",
    "statement_wrong": "1: a bug",
    "run_paused": "4: paused, a person lets it continue",
    "run_cancelled": "4: cancelled, a person may resume it",
    "source_overloaded": "4: held, resumable",
    "stalled": "3: a partition that stalls three times alone is quarantined",
}


def exits(reason: str) -> str:
    """Which exit code this reason leads to, in words."""
    number = CATALOGUE[reason][0]
    return _EXITS.get(reason) or (_ANYWHERE if 200 <= number < 400 else _BEFORE)
