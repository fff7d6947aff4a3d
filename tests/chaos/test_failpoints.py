"""Guarantee 2: a process that dies, fails or sleeps past its lease, at any step of the protocol, changes nothing of the outcome.

The suite has each point by SIGKILL, and by an exception or a sleep, in three runs that fail all along; `make chaos` plays every
cell (matrix.py). A point that is never come by fails its cell, and cells are made of all of `Point`: none is missing.
"""

from __future__ import annotations

import pytest

from batchscore.failpoints import Point
from tests.chaos.cells import INSIDE, ON_WORKERS, Action, Stage, chain


def test_a_run_killed_at_every_point_in_turn_ends_equal(on_sqlite: Stage) -> None:
    assert chain(on_sqlite, "killed", [(point, "kill") for point in Point]) == len(Point) >= 20


def test_a_run_that_fails_or_sleeps_past_its_lease_at_every_point_in_turn_ends_equal(on_sqlite: Stage) -> None:
    """An exception on a worker ends no driver, and who sleeps inside a transaction lets nobody write: those are cells alone."""
    asleep = [point for point in Point if point in ON_WORKERS or (point not in INSIDE and list(Point).index(point) % 2)]
    failures: list[tuple[Point, Action]] = [(point, "stop" if point in asleep else "raise") for point in Point]
    assert chain(on_sqlite, "failed", failures) == len(Point)


@pytest.mark.mysql
def test_on_mysql_a_run_killed_around_every_transaction_ends_equal(on_mysql: Stage) -> None:
    points = [point for point in Point if point not in ON_WORKERS]
    assert chain(on_mysql, "killed", [(point, "kill") for point in points]) == len(points)
