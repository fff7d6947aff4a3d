"""Every cell of guarantee 2, for `make chaos`: failpoints × {SIGKILL, exception, sleep past the lease}, on SQLite and MySQL."""

from __future__ import annotations

import pytest

from batchscore.failpoints import Point
from tests.chaos.cells import ACTIONS, Action, Stage, on_a_worker, play

N_TRANSACTIONS = 20  # of the story's run: some more than these it has in all


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("point", list(Point))
def test_a_run_that_meets_a_fault_at_a_point_ends_equal_on_sqlite(on_sqlite: Stage, point: Point, action: Action) -> None:
    play(on_sqlite, point, action, blocks=True, at=on_a_worker(point))


@pytest.mark.mysql
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("point", list(Point))
def test_a_run_that_meets_a_fault_at_a_point_ends_equal_on_mysql(on_mysql: Stage, point: Point, action: Action) -> None:
    play(on_mysql, point, action, blocks=False, at=on_a_worker(point))


@pytest.mark.parametrize("at", range(1, N_TRANSACTIONS + 1))
@pytest.mark.parametrize("point", [Point.TRANSACTION_DONE, Point.TRANSACTION_COMMITTED])
def test_every_transaction_of_a_run_is_cut_on_either_side_of_its_commit(on_sqlite: Stage, point: Point, at: int) -> None:
    play(on_sqlite, point, "kill", blocks=True, at=at)
