"""batchscore from Python: what its names do, and that importing them late is what makes them cheap."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from distributed import Client

import batchscore
from batchscore.errors import Held, Refused
from tests.commands import succeeded
from tests.run_digest import run_digest
from tests.small_world import SmallWorld, make_small_world


@pytest.fixture
def world(tmp_path: Path) -> SmallWorld:
    return make_small_world(tmp_path, n_accounts=120)


def test_importing_batchscore_loads_nothing_of_it() -> None:
    asked = "import sys; before = set(sys.modules); import batchscore; print(*sorted(set(sys.modules) - before))"
    said = succeeded(sys.executable, "-c", asked)
    loaded = {name.partition(".")[0] for name in said.split()}
    assert "batchscore" in loaded
    assert not loaded & {
        "click",
        "dask",
        "distributed",
        "numpy",
        "pandas",
        "pyarrow",
        "pydantic",
        "sqlalchemy",
        "xgboost",
        "yaml",
    }
    assert not [name for name in said.split() if name.startswith("batchscore.")]


def test_every_public_name_is_there_and_no_other() -> None:
    for name in batchscore.__all__:
        assert getattr(batchscore, name) is not None
        assert name in dir(batchscore)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        batchscore.nonsense  # noqa: B018 (asking is the test)


def test_a_spec_comes_to_a_queue(world: SmallWorld) -> None:
    spec = batchscore.read_spec(world.spec_path)
    row = batchscore.run(spec, inline=True)
    assert row.state == "finished"
    assert row.plan_digest == batchscore.make_plan(spec).digest
    assert batchscore.open_reader(world.store).queue("abuse", limit=100)


def test_a_client_that_is_passed_in_gives_equal_bits_and_stays_open(world: SmallWorld, client: Client) -> None:
    alone = batchscore.run(world.spec(store="alone"), inline=True)
    row = batchscore.run(world.spec(store="store"), client=client)
    assert run_digest(world.store, row.run_id) == run_digest(world.folder / "alone", alone.run_id)
    assert client.status == "running"
    assert client.submit(int, "7").result() == 7


def test_a_finished_run_is_returned_and_the_next_generation_is_run_on_request(world: SmallWorld) -> None:
    plan = batchscore.make_plan(world.spec())
    first = batchscore.run(plan, inline=True)
    assert batchscore.run(plan, inline=True).run_id == first.run_id
    assert batchscore.run(plan, inline=True, again=True).generation == first.generation + 1


def test_resume_returns_a_finished_run_and_refuses_a_changed_world(world: SmallWorld, client: Client) -> None:
    row = batchscore.run(world.spec(), inline=True)
    assert batchscore.resume(row.run_id, store=world.store, client=client) == row
    file = next((world.folder / "mails").rglob("*.parquet"))
    file.touch()
    with pytest.raises(Refused, match="source mails"):
        batchscore.resume(row.run_id, store=str(world.store), inline=True)


def test_a_held_run_goes_on_once_it_is_approved(world: SmallWorld, client: Client) -> None:
    """The last day's marker never came; the counts that the gate judges are made on workers."""
    spec = world.spec(gate="{mails: {marker: day=%Y-%m-%d/_SUCCESS}}", as_of="2026-01-15")
    with pytest.raises(Held) as held:
        batchscore.run(spec, client=client)
    (row,) = batchscore.open_reader(world.store).runs()
    assert (held.value.exit_code, row.state) == (4, "held")
    assert batchscore.approve(row.run_id, store=world.store, by="Ada").approved_by == "Ada"
    assert batchscore.resume(row.run_id, store=world.store, client=client).state == "finished"


def test_a_run_that_is_not_there_is_refused(world: SmallWorld) -> None:
    batchscore.run(world.spec(), inline=True)
    with pytest.raises(Refused) as refused:
        batchscore.resume("r-00000000-9", store=world.store, inline=True)
    assert refused.value.reason == "run_unknown"


def test_places_to_run_exclude_each_other_and_a_refusal_leaves_nothing_written(world: SmallWorld, client: Client) -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        batchscore.run(world.spec(), client=client, inline=True)
    with pytest.raises(ValueError, match="exclude each other"):
        batchscore.run(world.spec(), workers=2, scheduler="tcp://127.0.0.1:9")
    with pytest.raises(Refused):
        batchscore.run(world.spec(), scheduler="tcp://10.1.2.3:8786")
    assert not world.store.exists()
