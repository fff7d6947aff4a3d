"""Drivers of different runs release into one queue at once: all of them commit, and the database never has to choose a victim.

``BATCHSCORE_RIVAL_TRANSACTIONS``: how many there are of all rivals together; `make chaos` asks for 10,000.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from batchscore.ports import ReleaseCount
from batchscore.store import flags, open_reader, open_store
from tests.conftest import MakeMySqlStore
from tests.contract.store.conftest import make_flag, make_plan
from tests.mysql_server import MySqlServer

pytestmark = pytest.mark.mysql
N_RIVALS = 4
N_TRANSACTIONS = int(os.environ.get("BATCHSCORE_RIVAL_TRANSACTIONS", "600")) // N_RIVALS  # of each
ROWS = 4


def n_deadlocks(server: MySqlServer) -> int:
    return int(server.execute("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'")[0][1])


@pytest.mark.timeout(600)  # 40 s for 10,000 on two quiet cores
def test_four_drivers_release_into_one_queue_and_all_commit(
    mysql_server: MySqlServer, mysql_store: MakeMySqlStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flags, "ROWS_A_TRANSACTION", ROWS)
    folder = mysql_store(tmp_path)
    before = n_deadlocks(mysql_server)
    counts: list[ReleaseCount] = []
    barrier = threading.Barrier(N_RIVALS)

    def drive(number: int) -> None:
        store = open_store(folder, "integer")
        run, _ = store.open(make_plan(folder, name=f"model-{number}"), owner=f"driver-{number}")
        barrier.wait()
        # every account is flagged by two of the four
        ids = [account for account in range(N_TRANSACTIONS * ROWS * 2) if account % N_RIVALS in {number, (number + 1) % N_RIVALS}]
        counts.append(store.release(run, (make_flag(account, run_id=run.run_id, rank=account + 1) for account in ids)))

    threads = [threading.Thread(target=drive, args=(number,)) for number in range(N_RIVALS)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, deadlocks = time.monotonic() - began, n_deadlocks(mysql_server) - before
    n_all = N_RIVALS * N_TRANSACTIONS
    print(f"{N_RIVALS} rivals, {n_all:,} transactions in {seconds:.0f} s: {deadlocks} deadlocks")  # noqa: T201 (a figure of GUARANTEES.md)
    n_accounts = N_TRANSACTIONS * ROWS * 2
    assert len(counts) == N_RIVALS
    assert sum(count.n_flags for count in counts) == n_accounts
    assert sum(count.n_overtaken for count in counts) == n_accounts
    shown = open_reader(folder).queue("abuse", limit=n_accounts * 2)
    assert sorted(row.flag.account_id for row in shown) == list(range(n_accounts))
    assert deadlocks < n_all / 1000
