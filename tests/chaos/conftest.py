"""The stage of the failpoint tests: one world, an undisturbed run of it, and stores on either database."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchscore.store import open_reader
from tests.chaos.cells import Stage
from tests.chaos.processes import Child
from tests.chaos.story import make_world, tell
from tests.conftest import MakeMySqlStore
from tests.run_digest import run_digest
from tests.small_world import SmallWorld


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> SmallWorld:
    return make_world(tmp_path_factory.mktemp("chaos"))


@pytest.fixture(scope="module")
def undisturbed(world: SmallWorld) -> str:
    world.spec(store="undisturbed")
    with Child(tell, "run", str(world.spec_path)) as child:
        assert child.wait() == 0
    store = world.folder / "undisturbed"
    (row,) = open_reader(store).runs()
    return run_digest(store, row.run_id)


@pytest.fixture
def on_sqlite(world: SmallWorld, undisturbed: str) -> Stage:
    return Stage(world=world, make_store=lambda name: world.folder / name, undisturbed=undisturbed)


@pytest.fixture
def on_mysql(world: SmallWorld, undisturbed: str, mysql_store: MakeMySqlStore) -> Stage:
    """A driver that falls silent inside a transaction loses its locks after two seconds here; in production after thirty."""

    def made(name: str) -> Path:
        return mysql_store(world.folder / f"mysql-{name}", more="?read_timeout=2")

    return Stage(world=world, make_store=made, undisturbed=undisturbed)
