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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if terminalreporter.config.option.markexpr == "deploy":
        terminalreporter.section("not checked")
        terminalreporter.write_line((Path(__file__).parent / "not-checked.txt").read_text())
