"""What integration tests share: the small world, and a Dask cluster of two workers on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

from tests.small_world import SmallWorld, make_small_world


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A client that is nobody's default: what needs it must have been given it."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as opened,
    ):
        yield opened


@pytest.fixture
def world(tmp_path: Path) -> SmallWorld:
    """The small world as it is; a module that wants another one says so itself."""
    return make_small_world(tmp_path)
