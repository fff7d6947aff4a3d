"""What the demo prints to type next works in the shell that reads it."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from rich.console import Console

from batchscore.demo.results import show_next
from batchscore.ports import RunRow


def _said() -> list[str]:
    row = cast("RunRow", SimpleNamespace(run_id="r-00000000-1", plan=SimpleNamespace(spec=SimpleNamespace(store="/s"))))
    out = io.StringIO()
    show_next(row, Path("spec.yaml"), (), Console(file=out))
    return [line.strip() for line in out.getvalue().splitlines() if line.startswith("  ")]


def test_where_the_shell_does_not_know_the_program_the_first_line_activates_its_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _said()[0] == f". {sys.prefix}/bin/activate"


def test_where_the_shell_knows_the_program_nothing_needs_to_be_activated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "batchscore").write_text("#!/bin/sh\n")
    (tmp_path / "batchscore").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _said()[0].startswith("batchscore report")
