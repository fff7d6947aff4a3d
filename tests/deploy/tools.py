"""Programs that `make test-deploy` lays out in .deploy/, or that the machine has; what is not there skips its test."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

import pytest

from tests.deploy.units import ROOT

DEPLOY: Final = ROOT / ".deploy"
PLACES: Final = (DEPLOY / "tools/bin", DEPLOY / "debian/usr/bin", DEPLOY / "airflow/bin")


def tool(name: str) -> str:
    """The program's path; the test is skipped where there is none."""
    found = shutil.which(name, path=":".join([*map(str, PLACES), os.environ.get("PATH", "")]))
    if found is None:
        pytest.skip(f"{name} is not here: make test-deploy lays it out where it can")
    return found


def tools_site(package: str) -> Path:
    """Where a package's files lie in .deploy/tools; the test is skipped where it is not installed."""
    for site in (DEPLOY / "tools/lib").glob("python3*/site-packages"):
        if (site / package).is_dir():
            return site / package
    pytest.skip(f"{package} is not in .deploy/tools: make test-deploy installs it")
