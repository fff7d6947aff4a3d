"""Lays the real mail out as a mail provider would hold it: mails in Parquet by day, accounts in a database, the truth apart."""

from __future__ import annotations

import shutil
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

PACKAGED: Final = Path(__file__).parent / "spamassassin"
DATABASE: Final = "accounts.db"
TRAINED_AS_OF: Final = datetime(2002, 8, 12, tzinfo=UTC)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
CAVEAT: Final = (
    "Read the precision beside the base rate, and the new accounts apart. Two senders in three of this corpus sent spam. Spam "
    "and ham were collected by different people from different mailboxes: part of what tells them apart is where they were "
    "found. Four senders in five wrote a single mail. After 30 September 2002 there is almost no spam."
)


def lay_out_real_mail(folder: Path) -> None:
    """Write ``mails/day=…/part.parquet``, ``accounts.db``, ``truth.parquet``, the feature set and the spec into ``folder``.

    All 6,046 mails are kept with their dirt. Three have no sender and two no date: the run rejects them, and says so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mails = pq.read_table(PACKAGED / "events.parquet").replace_schema_metadata(None)
    _write_mails(mails, folder / "mails")
    _write_accounts(mails, folder / DATABASE)
    _write_truth(mails, folder / "truth.parquet")
    for name in ("features.yaml", "spec.yaml"):
        shutil.copyfile(PACKAGED / name, folder / name)


def _write_mails(mails: pa.Table, folder: Path) -> None:
    """One file per day of the Date header; mails without a date lie in a day of their own."""
    html = pc.cast(pc.equal(mails["content_type"], "text/html"), pa.int8())
    mails = mails.append_column("is_html", html)
    days = ["none" if ts is None else (_EPOCH + timedelta(seconds=ts)).date().isoformat() for ts in mails["ts"].to_pylist()]
    mails = mails.append_column("day", pa.array(days))
    for day in sorted(set(days)):
        (folder / f"day={day}").mkdir(parents=True)
        pq.write_table(mails.filter(pc.equal(mails["day"], day)).drop_columns("day"), folder / f"day={day}" / "part.parquet")


def _write_accounts(mails: pa.Table, path: Path) -> None:
    """One account per sender, there from its first mail; a sender whose mails bear no date never was."""
    dated = mails.filter(pc.and_(pc.is_valid(mails["sender_id"]), pc.is_valid(mails["ts"])))
    senders = dated.group_by("sender_id").aggregate(
        [("ts", "min"), ("sender_tld", "min"), ("sender_local_len", "min"), ("sender_local_digits", "min")]
    )  # fmt: skip
    rows = [
        (sender, (_EPOCH + timedelta(seconds=first)).isoformat(), tld, length, digits)
        for sender, first, tld, length, digits in zip(*(column.to_pylist() for column in senders.columns), strict=True)
    ]
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE accounts "
            "(sender_id TEXT PRIMARY KEY, first_mail_at TEXT, tld TEXT, local_len INTEGER, local_digits INTEGER)"
        )
        connection.executemany("INSERT INTO accounts VALUES (?, ?, ?, ?, ?)", sorted(rows))
    connection.close()


def _write_truth(mails: pa.Table, path: Path) -> None:
    """What a reviewer would have found of each sender: is_abuse, and since its first spam. Never an input of a run."""
    known = mails.filter(pc.is_valid(mails["sender_id"]))
    spam = pc.starts_with(known["label"], "spam")
    sent_at = pc.cast(pc.multiply(known["ts"], 1_000_000), pa.timestamp("us", tz="UTC"))
    rows = pa.table({"account_id": known["sender_id"], "is_abuse": spam, "since": pc.if_else(spam, sent_at, None)})
    truth = rows.group_by("account_id").aggregate([("is_abuse", "max"), ("since", "min")])
    pq.write_table(truth.rename_columns(["account_id", "is_abuse", "since"]).sort_by("account_id"), path)
