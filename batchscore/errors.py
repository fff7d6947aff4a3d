"""Every error batchscore raises on purpose: one root, one catalogue, one exit code each.

An error says *what* happened, *where* (file, column, partition, attempt) and *what to do*; it pickles, because attempts
raise it on workers; and it never carries a person's data, a password or a database URL. The catalogue below is the only
place where a reason gets its number, so that a number in a log leads to one paragraph of explanation.

This module knows nothing of the rest of the package.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

DONE: Final = 0
BUG: Final = 1
REFUSED: Final = 2
QUARANTINED: Final = 3
HELD: Final = 4
INTERRUPTED: Final = 5

# reason → (number, what it means in one sentence). Numbers are stable: a retired reason leaves a hole.
CATALOGUE: Final[dict[str, tuple[int, str]]] = {
    # 1xx: what the operator wrote
    "spec_invalid": (101, "The run spec or feature set has mistakes; all of them are listed with their lines."),
    "file_missing": (102, "A file that was named does not exist or cannot be read."),
    "secret_missing": (103, "A database URL is named in the spec but the environment does not hold it."),
    "run_unknown": (104, "No run of that id is in this store."),
    "run_id_invalid": (105, "A run id looks like r-1a2b3c4d-1; anything else is refused unread."),
    "plan_changed": (
        106,
        "A pinned part (input, bundle, feature set, policy, code, library) differs from the plan that was approved.",
    ),
    "store_missing": (107, "There is no store at that place yet; the first run creates it."),
    "report_unwritable": (108, "The page of a report could not be written where it was asked for; the run is not touched."),
    "plan_unreadable": (109, "The file that was given as an approved plan is none, or was edited since."),
    "not_acceptable": (110, "A change that nobody can accept was to be accepted: with it, it is another run."),
    "as_of_ahead": (121, "An as-of lies in the future: not all input that counts for it can be there."),
    "as_of_behind": (122, "A newer as-of of this spec was swept: a sweep never releases the past over it."),
    "nothing_to_retry": (123, "A retry would do nothing else than the run did."),
    "file_exists": (124, "A file that would be written is there already; nothing is written over."),
    "nothing_to_undo": (131, "The run put nothing before the reviewers that could be taken back."),
    "column_unclear": (125, "Which column is meant cannot be told from names and types, and is not guessed."),
    "run_unfinished": (126, "The run has not decided yet: there are no flags, and not all scores, to look at."),
    "account_unknown": (127, "No such account was frozen for the run."),
    "flag_unknown": (133, "No released run has a flag of that account in that queue."),
    "extra_missing": (141, "What was asked for needs a library that is an extra, and is not installed."),
    "telling_failed": (142, "A log, metrics or a textfile cannot be written or served where they were asked for."),
    "certs_refused": (143, "Certificates were not made: what lies in their folder is not to be touched as asked."),
    # 2xx: what the input is
    "not_parquet": (201, "A file is empty, cut short, encrypted or not Parquet."),
    "parquet_codec": (202, "A Parquet file uses a compression codec this build cannot read."),
    "column_missing": (203, "A declared column is not in the input; nothing is ever filled in with nulls."),
    "column_duplicate": (204, "A column name occurs twice in one file, so its meaning is a guess."),
    "column_type": (205, "A column has a type that cannot be used exactly as declared."),
    "type_drift": (206, "Two files give one column types that cannot be brought together without loss."),
    "id_physical_type": (207, "Account ids arrive as float, decimal or bool: they may already have lost digits."),
    "id_kind": (208, "Account ids are of another kind than the review database was installed with."),
    "id_too_large": (209, "An account id does not fit the store (SQLite holds integers up to 2^63-1)."),
    "duplicate_id": (210, "One account id occurs more than once in the accounts table."),
    "naive_timestamp": (211, "A timestamp has no zone and none is declared."),
    "timestamp_range": (212, "A timestamp lies outside what UTC microseconds from year 1 to 9999 can hold."),
    "path_escapes_root": (213, "A symlink or '..' leads out of the declared input folder."),
    "input_digest_mismatch": (214, "A file no longer is what it was when the plan was made."),
    "input_empty": (215, "The input folder holds no Parquet file."),
    "memory_limit": (216, "A row group or decoded page is larger than the memory limit allows."),
    "invalid_utf8": (217, "A text column holds bytes that are not UTF-8."),
    "sum_overflow": (218, "A sum left the range in which integers are exact."),
    "table_missing": (219, "The database has no table of that name."),
    "database_setup": (220, "The database or its account is not set up as needed; each finding has the statement that mends it."),
    "key_not_indexed": (221, "The accounts table has no index that begins with the key, so ranges of keys cannot be read."),
    "input_corrupt": (222, "A file's pages do not decode or do not match their checksums."),
    "history_overlap": (223, "Two rows of one account in a history hold at the same moment."),
    "label_conflict": (224, "Two labels of one account and one moment differ."),
    "python_feature": (
        231,
        "A Python function that makes a feature is missing, fails, is not row-wise, or is not the one planned.",
    ),
    "leak_found": (232, "A feature as of a date changed when what could only be known later was changed."),
    # 3xx: the model bundle and its contract
    "bundle_invalid": (301, "A bundle lacks a part, or its manifest has mistakes."),
    "bundle_digest": (302, "A bundle's file differs from the digest in its manifest."),
    "model_format": (303, "A model file is not XGBoost JSON or UBJSON."),
    "model_version": (304, "A model was written by a newer XGBoost than the one that would read it."),
    "model_objective": (305, "The model's objective does not give a probability that can be thresholded."),
    "feature_contract": (306, "The features the model wants and the features the feature set makes differ."),
    "margin_mismatch": (307, "A margin computed again for the reasons differs from the one that was scored."),
    "score_invalid": (308, "Too many scores of a partition are NaN or outside [0, 1]."),
    "golden_mismatch": (309, "The golden rows of a bundle do not give the margins and scores recorded when it was packed."),
    "model_crash": (310, "The process that first loaded a model, to keep workers from harm, died, hung or contradicted itself."),
    "feature_limit": (311, "A feature of a partition breaks a limit that the model's bundle declares."),
    "bundle_missing": (312, "There is no bundle at the place the spec names; all else was found right."),
    # 4xx: running, committing, releasing
    "commit_conflict": (401, "Someone else committed first; what is in the ledger counts."),
    "commit_unknown": (402, "A COMMIT got no answer; the ledger knows whether it stands."),
    "fenced": (403, "A newer driver has taken this run; this one must stop."),
    "run_taken": (404, "Another driver holds this run's lease."),
    "nondeterministic": (405, "Two attempts at one partition gave different bytes."),
    "worker_lost": (406, "A worker died while it worked at this partition."),
    "attempt_failed": (407, "An attempt failed for a reason that has no name yet."),
    "proof_failed": (408, "The proof does not close: some account is not accounted for exactly once."),
    "interrupted": (410, "The run was stopped on purpose; it can be resumed."),
    "partition_quarantined": (411, "A partition failed three times and was set aside; the others are committed."),
    "store_busy": (412, "The database stayed locked longer than the limit."),
    "database_error": (413, "The database refused a statement."),
    "store_schema": (414, "The store's tables are of another version than this code."),
    "write_failed": (415, "A file could not be written durably (disk full, I/O error)."),
    "run_failed": (416, "The run cannot go on and wrote nothing to the queue."),
    "database_away": (
        417,
        "The database could not be reached for longer than the limit; a run that was under way can be resumed.",
    ),
    "source_paused": (418, "A live source asked for rest longer than the run was told to wait; the run can be resumed."),
    "source_overloaded": (419, "A live source was above its critical load, so reading ended at once; the run can be resumed."),
    "input_held": (420, "The input is not what it usually is; the run is held before it scores, until a person approves."),
    "release_held": (
        422,
        "The flags are not what they usually are; the run is held before it releases, until a person approves them.",
    ),
    "nothing_decided": (423, "No person has confirmed or cleared a flag there, so nothing can be estimated."),
    "not_held": (421, "There is nothing to approve: the run is not held, or what it is held for was approved or has changed."),
    "run_paused": (431, "A person paused the run; it goes on once somebody lets it continue."),
    "run_cancelled": (432, "A person cancelled the run; what was committed stays, and it can be resumed on purpose."),
    "nothing_to_control": (433, "The run cannot be paused, continued or cancelled as it stands; nothing was asked of it."),
    "errors_held": (
        434,
        "More accounts were set aside than the spec's limits allow; held before release until a person approves.",
    ),
    "statement_wrong": (435, "The database refused a statement as wrong: a bug of ours, or tables that are not ours."),
    "run_superseded": (436, "A later run of the same plan was opened; that one is gone on with, and this one is not."),
    "audit_key_lost": (441, "The key under which the audit trail hides account ids is gone, and entries were made with it."),
    "row_damaged": (442, "A run's row in the store does not hold what was written there."),
    # 5xx: the cluster
    "scheduler_unreachable": (501, "The Dask scheduler does not answer."),
    "scheduler_insecure": (502, "The scheduler is on another host and the connection is not protected by TLS."),
    "version_skew": (503, "Driver and workers run different versions of what decides the bits of a score."),
    "scheduler_uncertified": (505, "The scheduler wants a certificate, and we have none to show, or one that cannot be used."),
    "metrics_open": (511, "Metrics would be served to others than this host, and nothing says that they may be."),
    "no_workers": (504, "The scheduler has no workers."),
    "stalled": (506, "An attempt did not end, or was not begun, within the stall limit; it was given up and is tried elsewhere."),
    # 6xx: the review queue
    "flag_absent": (601, "The queue has no flag of that account that a person could look at."),
    "flag_taken": (602, "Another reviewer has claimed the flag."),
    "flag_changed": (603, "The flag is not what the reviewer saw: its evidence, or the flag itself, changed meanwhile."),
    "flag_decided": (604, "A person has decided on the flag already."),
    "second_reviewer": (605, "The flag needs two people, and both would be one."),
    "dispositions_invalid": (
        606,
        "A file of decisions has mistakes; all of them are listed by row, and nothing was taken from it.",
    ),
    "decision_time": (609, "A decision is said to be from before its flag was released, or from a time to come."),
    "nothing_to_release": (608, "The run has nothing that could be released beside what it released."),
    "suppression_unknown": (607, "No suppression of that subject holds in the queue."),
}

# reason → the code of a row that is set aside alone (written to the rejects file, never raised)
REJECT_CODES: Final[dict[str, str]] = {
    "null_id": "the account id is null",
    "id_range": "the account id is negative",
    "id_length": "the account id is longer than 255 bytes, which no review database holds",
    "event_in_future": "the event is dated later than it was known, plus the declared skew",
    "null_event_at": "the event has no time",
    "null_known_at": "nothing says when the event became known",
    "timestamp_range": "the time lies outside years 1 to 9999",
    "null_valid_from": "nothing says from when the row of a history holds",
    "history_empty": "the row of a history ends before it begins, or as it begins",
    "nonfinite_feature": "a feature is infinite, or too large for float32",
    "unseen_category": "a feature holds a category that the model was not trained with, and is declared to reject it",
    "score_invalid": "the model gave NaN or a value outside [0, 1]",
}

# what an attempt found amiss and put right by itself, or went on with: told, never raised. A feature's name may follow the code
ALERTS: Final[dict[str, str]] = {
    "feature_nulls": "a feature is missing more often than when its model was packed",
    "feature_range": "more of a feature's values than expected lie where its model never saw one",
    "scorer_differs": "compiled code gave other bits of a score or reason than XGBoost; XGBoost's were taken",
}


def alert_meaning(alert: str) -> str:
    """An alert in words: its code's, and the name of the feature that follows it."""
    code, _, feature = alert.partition(" ")
    return f"{ALERTS[code]}: {feature}" if feature else ALERTS[code]


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One mistake among several: where it stands and what mends it."""

    where: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" → {self.remedy}" if self.remedy else "")


class BatchscoreError(Exception):
    """Root of all errors raised on purpose.

    ``reason`` is a key of `CATALOGUE`; ``what``, ``where`` and ``remedy`` are for people and hold no personal data.
    """

    exit_code: ClassVar[int] = BUG

    def __init__(self, reason: str, what: str, *, where: str = "", remedy: str = "", problems: tuple[Problem, ...] = ()) -> None:
        if reason not in CATALOGUE:
            msg = f"{reason!r} is not in the error catalogue"
            raise KeyError(msg)
        super().__init__(reason, what)
        self.reason = reason
        self.what = what
        self.where = where
        self.remedy = remedy
        self.problems = problems

    @property
    def code(self) -> str:
        """The stable number of this reason, as ``BS-203``."""
        return f"BS-{CATALOGUE[self.reason][0]}"

    def __str__(self) -> str:
        lines = [f"{self.code} {self.reason}: {self.what}" + (f" [{self.where}]" if self.where else "")]
        lines += [f"  - {problem}" for problem in self.problems]
        if self.remedy:
            lines.append(f"  → {self.remedy}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.reason, self.what, self.where, self.remedy, self.problems)


def _rebuild(
    kind: type[BatchscoreError], reason: str, what: str, where: str, remedy: str, problems: tuple[Problem, ...]
) -> BatchscoreError:
    return kind(reason, what, where=where, remedy=remedy, problems=problems)


def type_and_place(error: BaseException) -> str:
    """``KeyError at attempt.py:88`` for a foreign exception: its type and our innermost frame; its message may quote a row."""
    package = Path(__file__).parent
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(package)]
    place = f"at {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "outside batchscore"
    return f"{type(error).__name__} {place}"


class Refused(BatchscoreError):
    """Found before scoring; nothing was written. Exit 2."""

    exit_code = REFUSED


class PartitionError(BatchscoreError):
    """An attempt cannot do its partition, and doing it again would not help: quarantine it at once. Exit 3."""

    exit_code = QUARANTINED


class AttemptFailed(BatchscoreError):
    """An attempt failed in a way that another attempt may survive (a lost worker, an unforeseen exception)."""

    exit_code = QUARANTINED


class QuarantineStop(BatchscoreError):
    """The run ended early because of partitions that were set aside. Exit 3."""

    exit_code = QUARANTINED


class Held(BatchscoreError):
    """What was found needs a person: the run goes on once it is approved. Everything committed is kept. Exit 4."""

    exit_code = HELD


class Paused(BatchscoreError):
    """The moment is not right (a source is busy, its office is open); the run can be resumed when it is. Exit 4."""

    exit_code = HELD


class Cancelled(BatchscoreError):
    """A person ended the run from elsewhere. Everything committed is kept, and a person may resume it. Exit 4."""

    exit_code = HELD


class Interrupted(BatchscoreError):
    """Stopped on request, everything committed is kept, resume continues. Exit 5."""

    exit_code = INTERRUPTED


class Damaged(BatchscoreError):
    """What the store holds is not what was written: a person must look, and nothing is guessed. Exit 4."""

    exit_code = HELD


class RunFailed(BatchscoreError):
    """The run found something that must never be (a proof that does not close, bytes that differ). Exit 1."""


class CommitConflict(BatchscoreError):
    """Someone was first: read what stands and go on."""


class Fenced(BatchscoreError):
    """This driver is the old one: stop, write nothing more."""

    exit_code = INTERRUPTED


class DatabaseFailed(BatchscoreError):
    """The database answered with an error that is neither a conflict nor a lost connection."""


class StatementWrong(BatchscoreError):
    """A statement of ours was wrong; doing it again cannot help, and the run is not called resumable. Exit 1."""


class TryAgain(DatabaseFailed):
    """The database could not do it now; nothing of the transaction stands, and from its start it may succeed. Exit 5."""

    exit_code = INTERRUPTED


class CommitUnknown(BatchscoreError):
    """A COMMIT got no answer: ask the ledger before anything else. Exit 5."""

    exit_code = INTERRUPTED
