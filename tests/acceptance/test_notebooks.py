"""The notebooks run from their first cell to their last on a world that the demo makes, and are kept without outputs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.commands import batchscore

FOLDER = Path(__file__).parents[2] / "jobs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small simulated world after the demo."""
    folder = tmp_path_factory.mktemp("notebooks")
    done = batchscore(folder, "demo", "--accounts", "1500", "--days", "20", "--inline", "--folder", "demo")
    assert done.returncode == 0, done.stderr
    return folder / "demo"


def files(folder: Path) -> list[Path]:
    """All but those that SQLite makes while somebody reads."""
    return sorted(path for path in folder.rglob("*") if not path.name.startswith("batchscore.db-"))


def test_there_are_the_two_that_the_readme_names() -> None:
    assert [path.name for path in NOTEBOOKS] == ["explore_a_run.ipynb", "try_a_model.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_without_outputs(path: Path) -> None:
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert code
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert path.read_text(encoding="utf-8") == nbformat.writes(book) + "\n", "as Jupyter writes it"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_writes_nothing(path: Path, demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(demo)
    monkeypatch.setenv("BATCHSCORE_FOLDER", str(demo))
    book = nbformat.read(path, as_version=4)
    NotebookClient(book, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}).execute()
    shown = [output.data for cell in book.cells for output in cell.get("outputs", []) if output.output_type == "execute_result"]
    assert len(shown) > 5
    html = "".join(data.get("text/html", "") for data in shown)
    assert "explorer of run" in html
    assert "http" not in html
    assert not [output for cell in book.cells for output in cell.get("outputs", []) if output.output_type == "error"]
    assert files(demo) == before
