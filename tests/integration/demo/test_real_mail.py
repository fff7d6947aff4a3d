"""The real mail is laid out whole, with its dirt, and its accounts exist from their first mail."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore.demo.real_mail import lay_out_real_mail
from batchscore.features.feature_set import read_feature_set
from batchscore.spec import read_spec


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("real")
    lay_out_real_mail(out)
    return out


def test_every_mail_is_kept_with_its_dirt(folder: Path) -> None:
    mails = pa.concat_tables([pq.ParquetFile(path).read() for path in sorted((folder / "mails").rglob("*.parquet"))])
    assert len(mails) == 6_046
    assert mails["ts"].null_count == 2
    assert mails["sender_id"].null_count == 3
    days = {path.parent.name for path in (folder / "mails").rglob("*.parquet")}
    assert {"day=none", "day=2002-08-19"} <= days
    assert any(day.startswith("day=0102") for day in days)


def test_accounts_are_the_senders_from_their_first_mail(folder: Path) -> None:
    with sqlite3.connect(folder / "accounts.db") as connection:
        rows = connection.execute("SELECT sender_id, first_mail_at FROM accounts").fetchall()
    connection.close()
    assert len({sender for sender, _ in rows}) == len(rows) == 2_557
    assert all(first is not None and first.endswith("+00:00") for _, first in rows)


def test_spec_and_feature_set_have_no_mistake_and_no_verdict_among_the_features(folder: Path) -> None:
    feature_set = read_feature_set(Path(read_spec(folder / "spec.yaml").feature_set))
    assert not {"mid", "label"} & set(feature_set.column_names("mails"))
    assert len(feature_set.names) >= 20
