"""Everything here is `make test-deploy`'s: the mark keeps it out of the default suite."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.deploy)
            item.add_marker(pytest.mark.timeout(600))
