"""What a command or a refusal says comes next can be pasted as it stands: from any folder, whatever the store is called."""

from __future__ import annotations

import re
import shlex
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from batchscore.api import resume
from batchscore.errors import BatchscoreError, Interrupted, Refused
from batchscore.executors.inline import InlineExecutor
from batchscore.store import open_reader, open_store
from tests.commands import Said, call
from tests.fake_attempts import AtTheNth
from tests.small_world import SmallWorld, make_small_world
from tests.whole_runs import walk


@pytest.fixture
def world(tmp_path: Path) -> SmallWorld:
    return make_small_world(tmp_path / "o'dd $dir", n_accounts=60)


def newest(world: SmallWorld) -> str:
    return open_reader(world.store).runs()[0].run_id


def interrupted(world: SmallWorld) -> str:
    """A run that was stopped after its second attempt."""
    stop = threading.Event()
    with suppress(Interrupted):
        walk(world, InlineExecutor(AtTheNth(2, stop.set)), stop=stop)
    return newest(world)


def refused(*arguments: str | Path) -> BatchscoreError:
    with pytest.raises(BatchscoreError) as refusal:
        call(*arguments)
    return refusal.value


def commands_of(text: str) -> list[list[str]]:
    """Each command that the text names, as a shell splits it."""
    found = re.findall(r"batchscore ((?:(?!; then: |, or try|\n|\)| lists).)*--store '(?:[^']|'\"'\"')*')", text)
    return [shlex.split(one) for one in found]


def test_refusals_name_commands_that_run(world: SmallWorld) -> None:
    run_id = interrupted(world)
    of_store = ("--store", world.store)
    texts = [str(refused("retry", run_id, "--quarantined", *of_store)), str(refused("approve", run_id, "--by", "me", *of_store))]
    call("pause", run_id, *of_store)
    texts.append(str(refused("resume", run_id, "--inline", *of_store)))
    call("cancel", run_id, *of_store)
    texts.append(str(refused("pause", run_id, *of_store)))
    texts.append(str(refused("run", world.spec_path, "--inline")))
    texts.append(call("resume", run_id, "--inline", *of_store).stdout)
    texts += [str(refused("pause", run_id, *of_store)), call("undo", run_id, *of_store).stdout]
    ran = set()
    for text in texts:
        named = commands_of(text)
        assert named, text
        for words in named:
            assert words[words.index("--store") + 1] == str(world.store)
            if words[0] not in {"resume", "continue", "undo", "approve", "retry"}:  # they change the run that the others are of
                assert call(*words).code == 0
                ran.add(words[0])
    assert ran, "no command was tried"
    assert "--apply --why TEXT" in texts[-1]


def test_a_run_that_is_driven_is_watched_and_not_resumed(world: SmallWorld) -> None:
    run_id = interrupted(world)
    store = open_store(world.store, "integer")
    handle, _ = store.open(open_reader(world.store).run(run_id).plan, owner="elsewhere:1:1")
    assert f"next: batchscore watch {run_id} --store " in call("status", run_id, "--store", world.store).stdout
    assert "batchscore watch" in str(refused("retry", run_id, "--quarantined", "--store", world.store))
    store.close(handle, "interrupted")
    assert f"next: batchscore resume {run_id} --store " in call("status", run_id, "--store", world.store).stdout


def test_an_older_run_of_a_plan_is_not_resumed_as_the_newer_one(world: SmallWorld) -> None:
    first = interrupted(world)
    call("cancel", first, "--by", "ann", "--store", world.store)
    call("run", world.spec_path, "--inline", "--again")
    second = newest(world)
    assert first != second
    refusal = refused("resume", first, "--inline", "--store", world.store)
    assert (type(refusal), refusal.reason) == (Refused, "run_superseded")
    assert second in refusal.remedy
    row = open_reader(world.store).run(first)
    assert (row.state, row.request is not None) == ("cancelled", True), "nobody took the cancel back"
    assert f"next: batchscore status {second}" in call("status", first, "--store", world.store).stdout


def test_a_finished_run_is_reported_though_there_is_a_newer_one(world: SmallWorld) -> None:
    call("run", world.spec_path, "--inline")
    first = newest(world)
    call("run", world.spec_path, "--inline", "--again")
    assert call("resume", first, "--inline", "--store", world.store).stdout.startswith(f"{first} finished")
    assert resume(first, store=world.store, inline=True).run_id == first


@pytest.mark.parametrize(("state", "code"), [("interrupted", 5), ("cancelled", 4), ("paused", 4), ("failed", 1), ("finished", 0)])
def test_watch_ends_as_the_run_did(world: SmallWorld, state: str, code: int) -> None:
    run_id = interrupted(world)
    store = open_store(world.store, "integer")
    handle, _ = store.open(open_reader(world.store).run(run_id).plan, owner="elsewhere:1:1")
    store.close(handle, state)
    watched: Said = call("watch", run_id, "--store", world.store)
    assert watched.code == code
    assert ("next: batchscore " in watched.stdout) == (state != "finished")
