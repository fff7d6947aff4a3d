"""The simulated world follows from its seed, is written a block at a time, and keeps its truth apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore.demo import world
from batchscore.features.feature_set import read_feature_set
from batchscore.spec import read_spec

N, DAYS = 600, 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    world.write_world(out, accounts=N, days=DAYS, seed=3)
    return out


def mails_of(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.ParquetFile(path).read() for path in sorted((folder / "mails").rglob("*.parquet"))])


def test_equal_seeds_give_equal_worlds_and_other_seeds_others(folder: Path, tmp_path: Path) -> None:
    world.write_world(tmp_path / "same", accounts=N, days=DAYS, seed=3)
    world.write_world(tmp_path / "other", accounts=N, days=DAYS, seed=4)
    assert mails_of(tmp_path / "same").equals(mails_of(folder))
    assert not mails_of(tmp_path / "other").equals(mails_of(folder))


def test_ids_are_distinct_and_reach_beyond_what_a_float_holds(folder: Path) -> None:
    ids = pq.read_table(folder / "accounts")["account_id"].to_numpy()
    assert len(np.unique(ids)) == N
    assert (ids > 2**53).any()
    assert (ids < 2**53).any()


def test_late_mails_lie_with_the_day_they_were_known(folder: Path) -> None:
    n_late = 0
    for path in sorted((folder / "mails").rglob("*.parquet")):
        mails = pq.ParquetFile(path).read()
        known = {moment.date().isoformat() for moment in mails["known_at"].to_pylist()}
        assert known <= {path.parent.name.removeprefix("day=")}
        n_late += sum(
            at.date() < seen.date() for at, seen in zip(mails["event_at"].to_pylist(), mails["known_at"].to_pylist(), strict=True)
        )
    assert 0.01 < n_late / len(mails_of(folder)) < 0.05


def test_abuse_of_every_kind_is_planted_and_its_truth_is_no_column_of_an_input(tmp_path: Path) -> None:
    world.write_world(tmp_path, accounts=20_000, days=20, seed=1)
    truth = pq.read_table(tmp_path / "truth.parquet")
    assert set(truth["kind"].to_pylist()) == set(world.KINDS)
    inputs = set(pq.read_table(tmp_path / "accounts").column_names) | set(mails_of(tmp_path).column_names)
    assert not inputs & {"kind", "is_abuse", "since"}


def test_no_account_mails_before_it_exists(folder: Path) -> None:
    accounts = pq.read_table(folder / "accounts")
    created = dict(zip(accounts["account_id"].to_pylist(), accounts["created_at"].to_pylist(), strict=True))
    mails = mails_of(folder)
    assert all(
        at >= created[account] for account, at in zip(mails["account_id"].to_pylist(), mails["event_at"].to_pylist(), strict=True)
    )


def test_its_spec_and_feature_set_have_no_mistake(folder: Path) -> None:
    spec = read_spec(folder / "spec.yaml")
    assert read_feature_set(Path(spec.feature_set)).names
    assert spec.as_ofs()[0] > world.trained_as_of(DAYS)
