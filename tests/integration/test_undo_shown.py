"""An undo that was cut and never repeated is shown as what it is, wherever somebody looks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchscore.database import transact
from batchscore.store import open_reader, undo
from tests.commands import call
from tests.small_world import make_small_world


class Cut(Exception):
    """Stands for the death of the process."""


def test_a_cut_undo_is_shown_as_unfinished_until_it_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_small_world(tmp_path, n_accounts=60)
    call("run", world.spec_path, "--inline")
    (row,) = open_reader(world.store).runs()
    calls: list[int] = []

    def cutting(*arguments: Any, **named: Any) -> Any:
        if calls:
            raise Cut
        calls.append(1)
        return transact(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(undo, "transact", cutting)
        with pytest.raises(Cut):
            call("undo", row.run_id, "--apply", "--why", "wrong threshold", "--store", world.store)
    again = f"batchscore undo {row.run_id} --apply --why TEXT"

    def looked() -> list[str]:
        each = (("status",), ("status", row.run_id), ("report", row.run_id), ("report", row.run_id, "--json"))
        return [" ".join(call(*command, "--store", world.store).stdout.split()) for command in each]

    runs, run, report, document = looked()
    assert "undo unfinished" in runs
    assert "UNDO UNFINISHED" in run
    assert again in run
    assert "An undo was begun and has not ended" in report
    assert again in report
    assert '"undone_at": null' in document
    assert '"undo_begun_at": "' in document
    call("undo", row.run_id, "--apply", "--why", "the rest", "--store", world.store)
    runs, run, report, document = looked()
    assert "undone" in runs
    assert "unfinished" not in runs + run
    assert "The run was undone" in report
    assert '"undone_at": "' in document
