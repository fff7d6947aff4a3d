"""A small world to spoil: one pristine, copied for each test, and the digest of a run of it left undisturbed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from batchscore.planner import make_plan
from tests.integration.bad_input.spoiling import N, digest, go
from tests.small_world import SmallWorld, make_small_world


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> SmallWorld:
    return make_small_world(tmp_path_factory.mktemp("pristine"), n_accounts=N)


@pytest.fixture
def world(pristine: SmallWorld, tmp_path: Path) -> SmallWorld:
    folder = tmp_path / "world"
    shutil.copytree(pristine.folder, folder)
    return SmallWorld(folder=folder, n_accounts=N, kind="integer", text=pristine.text)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    world = make_small_world(tmp_path_factory.mktemp("undisturbed"), n_accounts=N)
    return digest(world, go(make_plan(world.spec())))
