"""The report commands as a person types them."""

from __future__ import annotations

import json

import pytest

from batchscore.report.difference import RunDifference
from batchscore.report.model import Report
from batchscore.store import open_reader
from tests.commands import batchscore
from tests.small_world import SmallWorld, make_small_world


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> SmallWorld:
    """A world whose spec was run twice."""
    world = make_small_world(tmp_path_factory.mktemp("finished"))
    for more in ((), ("--again",)):
        done = batchscore(world.folder, "run", "spec.yaml", "--inline", *more)
        assert done.returncode == 0, done.stderr
        assert "next: batchscore report r-" in done.stdout
    return world


def runs_of(world: SmallWorld) -> list[str]:
    """The run ids, the oldest first."""
    return sorted(row.run_id for row in open_reader(world.store).runs())


def test_report_writes_a_page_into_the_store_and_says_where(finished: SmallWorld) -> None:
    run_id = runs_of(finished)[0]
    done = batchscore(finished.folder, "report", run_id)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"report: store/reports/{run_id}.html"
    assert (finished.store / "reports" / f"{run_id}.html").read_text().startswith("<!DOCTYPE html>")


def test_report_writes_the_page_where_it_is_asked_to(finished: SmallWorld) -> None:
    done = batchscore(finished.folder, "report", "--html", "out/page.html", runs_of(finished)[0])
    assert done.returncode == 0, done.stderr
    assert (finished.folder / "out" / "page.html").is_file()


def test_report_and_diff_print_one_model_each_as_json(finished: SmallWorld) -> None:
    a, b = runs_of(finished)
    told = Report.model_validate_json(batchscore(finished.folder, "report", b, "--json").stdout)
    assert told.drift is not None
    assert told.drift.against_run == a
    found = RunDifference.model_validate_json(batchscore(finished.folder, "report", "diff", a, b, "--json").stdout)
    assert found.pinned == ()


def test_diff_shows_what_differs(finished: SmallWorld) -> None:
    done = batchscore(finished.folder, "report", "diff", *runs_of(finished))
    assert done.returncode == 0, done.stderr
    assert "every pinned part is the same" in done.stdout
    assert "dropped from A" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("report", "r-00000000-1"), "BS-104"),
        (("report", "../../x"), "BS-105"),
        (("report", "diff", "r-00000000-1"), "Missing argument"),
        (("report", "RUN", "--json", "--html", "x.html"), "exclude each other"),
        (("report", "r-00000000-1", "--store", "nowhere"), "BS-107"),
    ],
)
def test_what_cannot_be_reported_is_refused(finished: SmallWorld, arguments: tuple[str, ...], complaint: str) -> None:
    done = batchscore(finished.folder, *arguments)
    assert done.returncode == 2
    assert complaint in done.stderr


def test_a_report_reads_only(finished: SmallWorld) -> None:
    run_id = runs_of(finished)[0]
    before = sorted(path for path in finished.folder.rglob("*") if "db-" not in path.name)
    assert json.loads(batchscore(finished.folder, "report", run_id, "--json").stdout)["run"]["run_id"] == run_id
    assert sorted(path for path in finished.folder.rglob("*") if "db-" not in path.name) == before
