"""What later runs add to a flag that stands: versions of its evidence, only where something moved, and gone with their run."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from batchscore.desk import Happened
from batchscore.errors import Refused
from batchscore.flag import Flag, FlagState, Reason
from batchscore.ports import ReleaseCount, RunHandle
from batchscore.store import Ledger, open_desk, open_reader
from tests.contract.store.at_the_desk import held, says
from tests.contract.store.conftest import AS_OF, OpenStore, make_flag, make_plan
from tests.dba import dba_engine
from tests.past_flags import PastFlag, past_flags

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
NEW = Reason(code="links", sentence="40 links in 7 days", contribution=0.2)


def sweep(
    store: Ledger, folder: Path, name: str, *, flags: tuple[int, ...] = (), adds: tuple[int, ...] = (), **more: Any
) -> tuple[RunHandle, ReleaseCount]:
    """A run that releases ``flags``, and adds to those of ``adds`` that stood when it decided."""
    run, _ = store.open(make_plan(folder, name=name), owner="me")

    def made(ids: tuple[int, ...]) -> list[Flag]:
        return [make_flag(one, run_id=run.run_id, rank=place).model_copy(update=more) for place, one in enumerate(ids, 1)]

    count = store.release(run, iter(made(flags)), made(adds))
    assert store.release(run, iter(made(flags)), made(adds)) == count, "done twice it is done once"
    store.close(run, "finished")
    return run, count


def remembered(store: Ledger, folder: Path, account_id: int = 7) -> PastFlag:
    row = store.open(make_plan(folder, name="asks"), owner="me")[1]
    return next(one for one in past_flags(store.reader(), "abuse", row) if one.account_id == account_id)


def evidence_of(folder: Path) -> list[tuple[Any, ...]]:
    query = "SELECT evidence_run, released_as, withdrawn_at IS NULL FROM review_evidence ORDER BY released_at"
    with dba_engine(folder).begin() as connection:
        return [tuple(row) for row in connection.execute(sa.text(query))]


def test_each_night_that_moved_appends_a_version_and_one_that_did_not_costs_none(store: Ledger, store_folder: Path) -> None:
    sweep(store, store_folder, "one", flags=(7, 8))
    two, count = sweep(store, store_folder, "two", flags=(9,), adds=(7,), as_of=AS_OF + DAY, score=0.9)
    assert count == ReleaseCount(n_flags=1, n_overtaken=1, n_evidence=1)
    sweep(store, store_folder, "same", adds=(7,), as_of=AS_OF + 2 * DAY, score=0.91)
    assert (held(store_folder).version, held(store_folder).newest.flag.run_id) == (2, two.run_id)
    reasons = (*make_flag(7, run_id="").reasons, NEW)
    three, _ = sweep(store, store_folder, "three", adds=(7,), as_of=AS_OF + 3 * DAY, score=0.91, reasons=reasons)
    flag = held(store_folder)
    assert (flag.version, flag.newest.flag.run_id, flag.state) == (3, three.run_id, FlagState.OPEN)
    desk = open_desk(store_folder)
    with pytest.raises(Refused, match="flag_changed") as refusal:
        desk.decide([says(evidence=2)])
    assert f"run {three.run_id} as of 2026-01-18: score 0.9000 → 0.9100, new reasons: links" in refusal.value.what
    known = remembered(store, store_folder)
    assert (known.run_id, known.as_of) == (three.run_id, AS_OF + 3 * DAY)
    told = [(event.number, event.act) for event in open_reader(store_folder).account_events("abuse", 7)]
    assert told == [(1, Happened.OPENED), (4, Happened.EVIDENCE), (5, Happened.UNMOVED), (6, Happened.EVIDENCE)]
    assert desk.decide([says(evidence=3)]) == 1
    known = remembered(store, store_folder)
    assert (known.run_id, known.reason_codes) == (three.run_id, ("mails", "links"))


def test_an_older_as_of_adds_nothing_to_newer_evidence(store: Ledger, store_folder: Path) -> None:
    sweep(store, store_folder, "new", flags=(7,), as_of=AS_OF + DAY)
    _, old = sweep(store, store_folder, "old", flags=(7,), as_of=AS_OF - 30 * DAY, score=0.2)
    assert old == ReleaseCount(n_flags=0, n_overtaken=1)
    sweep(store, store_folder, "older", adds=(7,), as_of=AS_OF, score=0.3)
    assert (held(store_folder).version, held(store_folder).newest.flag.score) == (1, 0.75)


def test_undo_takes_a_version_back_and_what_it_had_superseded_is_the_newest_again(store: Ledger, store_folder: Path) -> None:
    one, _ = sweep(store, store_folder, "one", flags=(7,))
    two, _ = sweep(store, store_folder, "two", adds=(7,), as_of=AS_OF + DAY, score=0.9)
    three, _ = sweep(store, store_folder, "three", adds=(7,), as_of=AS_OF + 2 * DAY, score=0.4)
    store.undo(three.run_id, by="cid", why="wrong model")
    assert (held(store_folder).version, held(store_folder).newest.flag.run_id) == (4, two.run_id)
    assert remembered(store, store_folder).run_id == two.run_id
    store.undo(one.run_id, by="cid", why="wrong model")
    flag = held(store_folder)
    assert (flag.flag.run_id, flag.state) == (two.run_id, FlagState.OPEN), "the first that gave way stands in its place"
    store.undo(two.run_id, by="cid", why="wrong model")
    assert held(store_folder).state is FlagState.WITHDRAWN


def test_evidence_that_a_person_decided_on_stays_when_its_run_is_undone(store: Ledger, store_folder: Path) -> None:
    one, _ = sweep(store, store_folder, "one", flags=(7,))
    two, _ = sweep(store, store_folder, "two", adds=(7,), as_of=AS_OF + DAY, score=0.9)
    three, _ = sweep(store, store_folder, "three", adds=(7,), as_of=AS_OF + 2 * DAY, score=0.4)
    assert open_desk(store_folder).decide([says(evidence=3)]) == 1
    for run in (two, three):
        store.undo(run.run_id, by="cid", why="wrong model")
    flag = held(store_folder)
    assert (flag.state, flag.decided[-1].evidence, flag.newest.flag.run_id) == (FlagState.CLEARED, 3, three.run_id)
    assert [one.withdrawn_at is None for one in flag.evidence] == [True, False, True]
    assert evidence_of(store_folder) == [(one.run_id, "opened", 1), (two.run_id, "evidence", 0), (three.run_id, "evidence", 1)]
    assert remembered(store, store_folder).run_id == three.run_id


def test_a_second_reviewer_that_decided_evidence_asked_for_is_asked_for_still(store: Ledger, store_folder: Path) -> None:
    sweep(store, store_folder, "one", flags=(7,))
    two, _ = sweep(store, store_folder, "two", adds=(7,), as_of=AS_OF + DAY, second_reviewer=True)
    assert open_desk(store_folder).decide([says(evidence=2)]) == 1
    store.undo(two.run_id, by="cid", why="wrong model")
    assert (held(store_folder).state, held(store_folder).needs_second) == (FlagState.AWAITING, True)
    with dba_engine(store_folder).begin() as connection:
        assert connection.execute(sa.text("SELECT second_reviewer FROM review_flags")).scalar_one() == 1


def test_what_only_adds_opens_nothing_when_its_flag_left_the_queue_meanwhile(store: Ledger, store_folder: Path) -> None:
    one, _ = sweep(store, store_folder, "one", flags=(7, 8, 9))
    desk = open_desk(store_folder)
    desk.decide([says()])
    desk.claim("abuse", by="ann", for_=HOUR, only=[9])
    with dba_engine(store_folder).begin() as connection:
        connection.execute(sa.text("UPDATE flags SET opened_at = 1 WHERE account_id = 8"))
    assert desk.expire("abuse", by="cron", older_than=HOUR, apply=True) == 1
    two, count = sweep(store, store_folder, "two", adds=(7, 8, 9), as_of=AS_OF + DAY, score=0.9)
    assert count == ReleaseCount(n_flags=0, n_overtaken=3, n_decided_kept=1, n_evidence=1)
    assert [held(store_folder, one).state.value for one in (7, 8, 9)] == ["cleared", "expired", "claimed"]
    assert [held(store_folder, one).version for one in (7, 8, 9)] == [1, 1, 2]
    assert {flag.flag.run_id for flag in open_reader(store_folder).flags(two.run_id)} == {two.run_id}
    assert held(store_folder, 9).flag.run_id == one.run_id


def test_what_adds_to_a_flag_that_was_withdrawn_meanwhile_stands_in_its_place(store: Ledger, store_folder: Path) -> None:
    one, _ = sweep(store, store_folder, "one", flags=(7,))
    store.undo(one.run_id, by="cid", why="wrong model")
    two, count = sweep(store, store_folder, "two", adds=(7,), as_of=AS_OF + DAY)
    assert count == ReleaseCount(n_flags=1, n_overtaken=0, n_instead=1)
    assert (held(store_folder).flag.run_id, held(store_folder).version) == (two.run_id, 1)


DYING = """
import sys
from datetime import timedelta
from pathlib import Path
from batchscore.store import flags, open_store
from tests.contract.store.conftest import AS_OF, make_flag, make_plan
flags.ROWS_A_STATEMENT, flags.ROWS_A_TRANSACTION = 2, 4
store = open_store(Path(sys.argv[1]), "integer", lease_s=0.1)
run, _ = store.open(make_plan(Path(sys.argv[1]), name=sys.argv[2]), owner="dying")
more = {"as_of": AS_OF + timedelta(days=int(sys.argv[3])), "score": float(sys.argv[4])}
made = [make_flag(one, run_id=run.run_id).model_copy(update=more) for one in range(10, 17)]
store.release(run, iter(made[:1]), made[1:])
"""


@pytest.mark.parametrize("at", [3, 4])  # the first is the flag's; inside a transaction, and in the next one
def test_a_driver_killed_between_two_statements_of_evidence_shows_none_and_ends_alike(
    open_again: OpenStore, store_folder: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    store = open_again()
    ids = range(11, 17)
    one, _ = sweep(store, store_folder, "one", flags=tuple(ids))
    monkeypatch.setenv("BATCHSCORE_FAILPOINTS", f"flags inserting=kill@{at}")
    command = [sys.executable, "-c", DYING, str(store_folder), "cut", "1", "0.9"]
    assert subprocess.run(command, check=False, cwd=Path(__file__).parents[3]).returncode == -signal.SIGKILL
    monkeypatch.delenv("BATCHSCORE_FAILPOINTS")
    assert {held(store_folder, account_id).version for account_id in ids} == {1}
    assert len(open_reader(store_folder).events(0, limit=100)) == len(ids)
    run = None
    while run is None:
        try:
            run, _ = store.open(make_plan(store_folder, name="cut"), owner="next")
        except Refused as refusal:
            assert refusal.reason == "run_taken"
    more: dict[str, Any] = {"as_of": AS_OF + DAY, "score": 0.9}
    made = [make_flag(account_id, run_id=run.run_id).model_copy(update=more) for account_id in range(10, 17)]
    assert store.release(run, iter(made[:1]), made[1:]) == ReleaseCount(n_flags=1, n_overtaken=6, n_evidence=6)
    assert {(held(store_folder, account_id).version, held(store_folder, account_id).flag.run_id) for account_id in ids} == {
        (2, one.run_id)
    }
    told = [(event.number, event.account_id) for event in open_reader(store_folder).events(len(ids), limit=100)]
    assert told == [(7 + place, 10 + place) for place in range(7)], "each once, as if nothing had happened"


def test_evidence_of_a_run_that_stopped_inside_its_release_hides_nobody_elses(
    open_again: OpenStore, store_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_again()
    sweep(store, store_folder, "one", flags=(7,))
    monkeypatch.setattr("batchscore.store.flags.ROWS_A_TRANSACTION", 1)
    dying = open_again(lease_s=0.0)
    cut, _ = dying.open(make_plan(store_folder, name="cut"), owner="me")
    more: dict[str, Any] = {"as_of": AS_OF + DAY, "score": 0.9}

    def stops() -> Iterator[Flag]:
        yield make_flag(7, run_id=cut.run_id).model_copy(update=more)
        raise TimeoutError

    with pytest.raises(TimeoutError):
        dying.release(cut, iter(()), stops())
    two, count = sweep(store, store_folder, "two", adds=(7,), **more)
    assert count == ReleaseCount(n_flags=0, n_overtaken=1, n_evidence=1)
    assert (held(store_folder).version, held(store_folder).newest.flag.run_id) == (2, two.run_id)
