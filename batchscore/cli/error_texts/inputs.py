"""What the input is (BS-2xx): files, tables, types, times, ids."""

from __future__ import annotations

from typing import Final

from batchscore.cli.error_texts.advice import BEFORE, Advice

ADVICE: Final = {
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
        "SQLite has signed 64-bit integers, and an id is above 2^63−1. (Text longer than 255 bytes is rejected with its row: "
        "`id_length`.)",
        "Declare `account_id: string` in the feature set, use a new store, and give the ids as text.",
    ),
    "duplicate_id": Advice(
        "The accounts table has history rows, a join doubled some accounts, or a folder holds yesterday's export beside today's.",
        "Leave one row for each account: keep one export in the folder, or name a view that picks the newest row. If the rows "
        "say from when to when they hold, declare `accounts.history` in the feature set.",
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
    "database_setup": Advice(
        "A right is not granted, a table is not InnoDB, a column's type or collation would round or fold values, or a limit of "
        "the server is too small; or the URL's ssl_ca does not vouch for the server's certificate and host.",
        "Each finding comes with the statement that mends it, for whoever may run it.",
    ),
    "key_not_indexed": Advice(
        "The declared key is neither the primary key nor the first column of an index, so every page would read the whole table.",
        "Run the CREATE INDEX of the message on a quiet hour, or name another key in the feature set.",
    ),
    "input_corrupt": Advice(
        "A bit flipped on disk or on the way, or the writer died half-way. The page's checksum found it.",
        "Restore that file from its source and resume. Look at the disk's health if it happens twice.",
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
}

EXITS: Final = {
    "database_setup": BEFORE,
    "id_too_large": "2: refused; found while a run reads its accounts, the run ends and nothing is released",
    "duplicate_id": "2: refused; found while a run reads its accounts, the run ends and nothing is released",
    "history_overlap": "2: refused; found while a run reads its accounts, the run ends and nothing is released",
}
