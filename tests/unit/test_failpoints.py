"""Failpoints: none is in the code and not in the matrix, none can be armed by accident, and unarmed they cost nothing."""

from __future__ import annotations

import os
import re
import sys
import timeit
from collections.abc import Iterator
from pathlib import Path

import pytest

import batchscore
from batchscore.failpoints import UNDER_TEST, VARIABLE, ForcedFailure, Point, arm, reach
from tests.commands import ended


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    arm("")


def test_every_point_is_in_the_code_and_so_in_the_matrix_which_is_made_of_all_points() -> None:
    """`tests/chaos` fails a cell whose point is not come by; that a name stands in code twice is fine (two writers of files)."""
    package = Path(batchscore.__file__).parent
    named = [
        name for path in package.rglob("*.py") for name in re.findall(r"\breach\(Point\.([A-Z_]+)\)", path.read_text("utf-8"))
    ]
    assert set(named) == {point.name for point in Point}
    assert len(Point) >= 20


def test_an_armed_point_fails_once_at_its_time() -> None:
    arm("file synced=raise@2")
    reach(Point.FILE_SYNCED)
    reach(Point.FILE_LINKED)
    with pytest.raises(ForcedFailure):
        reach(Point.FILE_SYNCED)
    reach(Point.FILE_SYNCED)


def test_a_pattern_counts_its_points_together() -> None:
    arm("file *=full@3; released=io")
    reach(Point.FILE_NAMED)
    reach(Point.FILE_WRITTEN)
    with pytest.raises(OSError, match="No space left"):
        reach(Point.FILE_SYNCED)
    with pytest.raises(OSError, match="Input/output error"):
        reach(Point.RELEASED)


@pytest.mark.parametrize("said", ["file synched=kill", "released=explode", "released", "released=kill@0", "nothing *=kill"])
def test_what_is_not_understood_arms_nothing(said: str) -> None:
    with pytest.raises(ValueError, match="POINT=ACTION"):
        arm(said)
    reach(Point.RELEASED)


@pytest.mark.parametrize("under_test", [True, False])
def test_outside_a_test_an_armed_process_does_not_start(under_test: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if name != UNDER_TEST} | {VARIABLE: "released=kill"}
    if under_test:
        environment[UNDER_TEST] = "here"
    command = [sys.executable, "-c", "import batchscore.failpoints as f; f.reach(f.Point.RELEASED)"]
    done = ended(*command, env=environment)
    assert done.returncode == (-9 if under_test else 1)
    assert under_test or f"unset {VARIABLE}" in done.stderr


def test_unarmed_a_point_costs_less_than_a_thousandth_of_the_fsync_beside_it() -> None:
    n = 10_000
    each_s = min(timeit.repeat(lambda: reach(Point.FILE_SYNCED), number=n, repeat=5)) / n
    assert each_s < 1e-6, "an fsync takes a millisecond"
