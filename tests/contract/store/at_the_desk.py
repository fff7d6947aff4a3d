"""What tests of the desk share: runs that released, opinions, and what is shown of it all."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from batchscore.desk import Opinion, Reviewed, Wanted
from batchscore.errors import Refused
from batchscore.flag import AccountId, Disposition
from batchscore.ports import RunHandle
from batchscore.store import Ledger, ReviewDesk, open_reader
from tests.contract.store.conftest import make_flag, make_plan
from tests.dba import dba_engine

HOUR = timedelta(hours=1)


def released(store: Ledger, folder: Path, name: str, *ids: AccountId, **more: Any) -> RunHandle:
    run, _ = store.open(make_plan(folder, name=name), owner="me")
    made = (make_flag(account_id, run_id=run.run_id, rank=n + 1).model_copy(update=more) for n, account_id in enumerate(ids))
    store.release(run, made)
    store.close(run, "finished")
    return run


def says(account_id: AccountId = 7, disposition: Disposition = Disposition.CLEARED, by: str = "ann", **more: Any) -> Opinion:
    return Opinion(queue="abuse", account_id=account_id, disposition=disposition, by=by, **more)


def held(folder: Path, account_id: AccountId = 7) -> Reviewed:
    return open_reader(folder).account_flags("abuse", account_id)[-1]


def shown(folder: Path, **wanted: Any) -> list[tuple[AccountId, str]]:
    rows = open_reader(folder).reviewed(Wanted(queue="abuse", **wanted), limit=1_000)
    return [(row.flag.account_id, row.state.value) for row in rows]


def execute(folder: Path, statement: str) -> Any:
    with dba_engine(folder).begin() as connection:
        return connection.execute(sa.text(statement))


def let_claims_run_out(folder: Path) -> None:
    execute(folder, "UPDATE claims SET until = 1 WHERE ended_at IS NULL")


def refused(desk: ReviewDesk, *decisions: Opinion) -> Refused:
    with pytest.raises(Refused) as refusal:
        desk.decide(decisions)
    return refusal.value
