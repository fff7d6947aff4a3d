"""What a flag shows after undos: what the runs that are left would have made of it, in whatever order the others went."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchscore.desk import Happened, Reviewed
from batchscore.errors import Refused
from batchscore.evidence import Said, says_more
from batchscore.flag import Flag
from batchscore.policy import MoreEvidence
from batchscore.ports import RunHandle
from batchscore.store import Ledger, ReviewDesk, open_desk, open_reader, open_store
from tests.conftest import MakeMySqlStore
from tests.contract.store.at_the_desk import held, says
from tests.contract.store.conftest import AS_OF, make_flag, make_plan
from tests.dba import dba_engine

DAY = timedelta(days=1)


class Says(NamedTuple):
    """What a run says of one account: on which day, with which score, and whether two people must agree."""

    day: int
    score: float
    second: bool = False

    def flag(self, run_id: str, account_id: int = 7) -> Flag:
        more = {"as_of": AS_OF + self.day * DAY, "score": self.score, "second_reviewer": self.second}
        return make_flag(account_id, run_id=run_id).model_copy(update=more)


def sweep(store: Ledger, folder: Path, name: str, says: Says, *, adds: bool = False) -> RunHandle:
    run, _ = store.open(make_plan(folder, name=name), owner="me")
    flags = [says.flag(run.run_id)]
    store.release(run, iter(() if adds else flags), flags if adds else ())
    store.close(run, "finished")
    return run


def counting(flag: Reviewed) -> list[str]:
    """The runs whose evidence stands, in order."""
    return [one.flag.run_id for one in flag.evidence if not one.kept and one.withdrawn_at is None]


def decides(desk: ReviewDesk, saw: int, **more: Any) -> int:
    return desk.decide([says(evidence=saw, **more)])


def test_what_said_the_same_as_a_run_that_is_undone_says_it_from_then_on(store: Ledger, store_folder: Path) -> None:
    one = sweep(store, store_folder, "one", Says(0, 0.5))
    two = sweep(store, store_folder, "two", Says(1, 0.75))
    three = sweep(store, store_folder, "three", Says(2, 0.75), adds=True)
    assert (held(store_folder).version, counting(held(store_folder))) == (2, [one.run_id, two.run_id])
    looked = open_reader(store_folder).undo(two.run_id)
    assert (looked.n_evidence, looked.n_turned) == (1, 1)
    done = store.undo(two.run_id, by="cid", why="wrong model")
    assert (done.n_evidence, done.n_turned) == (1, 1)
    assert store.undo(two.run_id, by="cid", why="again") == done
    flag = held(store_folder)
    assert (flag.version, flag.newest.flag.run_id, flag.newest.flag.score) == (4, three.run_id, 0.75)
    with pytest.raises(Refused, match="flag_changed") as refusal:
        decides(open_desk(store_folder), 2)
    assert f"evidence 3 came, of run {three.run_id}" in refusal.value.what
    assert "evidence 2 was withdrawn" in refusal.value.what
    told = [(event.act, event.run_id) for event in open_reader(store_folder).account_events("abuse", 7)]
    assert told == [
        (Happened.OPENED, one.run_id), (Happened.EVIDENCE, two.run_id), (Happened.UNMOVED, three.run_id),
        (Happened.EVIDENCE, three.run_id),
    ], "what the release told stays as it was told"  # fmt: skip
    acts = [entry.act for entry, _ in open_reader(store_folder).audit()]
    assert acts[-3:] == ["undo begun", "evidence turned", "undone"]
    assert decides(open_desk(store_folder), 4) == 1


def test_what_was_new_only_beside_a_run_that_is_undone_is_new_no_more(store: Ledger, store_folder: Path) -> None:
    one = sweep(store, store_folder, "one", Says(0, 0.5))
    two = sweep(store, store_folder, "two", Says(1, 0.75))
    three = sweep(store, store_folder, "three", Says(2, 0.5, second=True))
    four = sweep(store, store_folder, "four", Says(3, 0.75, second=True))
    assert counting(held(store_folder)) == [run.run_id for run in (one, two, three, four)]
    store.undo(three.run_id, by="cid", why="wrong model")
    assert counting(held(store_folder)) == [one.run_id, two.run_id, four.run_id], "it asks for a second reviewer"
    five = sweep(store, store_folder, "five", Says(4, 0.5, second=True))
    store.undo(four.run_id, by="cid", why="wrong model")
    store.undo(two.run_id, by="cid", why="wrong model")
    flag = held(store_folder)
    assert (counting(flag), flag.newest.flag.score) == ([one.run_id, five.run_id], 0.5)
    store.undo(five.run_id, by="cid", why="wrong model")
    six = sweep(store, store_folder, "six", Says(5, 0.75))
    seven = sweep(store, store_folder, "seven", Says(6, 0.5))
    before = held(store_folder).version
    store.undo(six.run_id, by="cid", why="wrong model")
    flag = held(store_folder)
    assert counting(flag) == [one.run_id]
    assert flag.version == before + 2, "one went, and one is new no more"
    with pytest.raises(Refused, match="flag_changed") as refusal:
        decides(open_desk(store_folder), before)
    number = next(one.number for one in flag.evidence if one.flag.run_id == seven.run_id)
    assert f"evidence {number} says no more than what stands by now" in refusal.value.what
    assert decides(open_desk(store_folder), flag.version) == 1


IN_VIEW = sa.text(
    "SELECT SUM(versions), SUM(released_as IN ('opened', 'instead', 'evidence') AND withdrawn_at IS NULL) "
    "FROM review_evidence WHERE run_id = :flag"
)
Sweeps = list[tuple[Says, bool]]
sweeps = st.lists(
    st.tuples(st.builds(Says, st.integers(0, 3), st.sampled_from([0.5, 0.53, 0.56, 0.9]), st.booleans()), st.booleans()),
    min_size=2,
    max_size=6,
)
orders = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6)), max_size=5, unique_by=lambda undone: undone[0])


def replayed(says: list[Says]) -> list[int]:
    """Which of these runs would have had a say, had there been no others: the first flags, the others add where they say more."""

    def said(one: Says) -> Said:
        return Said(as_of=AS_OF + one.day * DAY, score=one.score, codes=frozenset({"mails"}), second_reviewer=one.second)

    counts: list[int] = []
    for place, one in enumerate(says):
        newest = max(counts, key=lambda other: (says[other].day, other), default=None)
        if newest is None or says_more(said(one), said(says[newest]), MoreEvidence()):
            counts.append(place)
    return counts


def check(folder: Path, says: Sweeps, undone: list[tuple[int, int]]) -> None:
    """``undone``: which run, and after how many sweeps at the earliest; in that order."""
    store = open_store(folder, "integer")
    runs: list[RunHandle] = []
    left = list(undone)
    version: dict[str, int] = {}

    def look() -> None:
        gone = {number for number, _ in undone if (number, _) not in left}
        there = [number for number in range(len(runs)) if number not in gone]
        expected = [runs[there[place]].run_id for place in replayed([says[number][0] for number in there])]
        rows = [flag for flag in open_reader(folder).account_flags("abuse", 7) if flag.state.value == "open"]
        assert [run_id for flag in rows for run_id in counting(flag)] == expected
        for flag in rows:
            of_run = {one.flag.run_id: one.flag.as_of for one in flag.evidence}
            assert flag.newest.flag.run_id == max(expected, key=lambda run_id: (of_run[run_id], expected.index(run_id)))
            assert flag.version >= version.get(flag.flag.run_id, 0)
            version[flag.flag.run_id] = flag.version
            with dba_engine(folder).begin() as connection:
                made, n_counting = connection.execute(IN_VIEW, {"flag": flag.flag.run_id}).one()
            assert (int(made), int(n_counting)) == (flag.version, len(expected)), "the view says the same"

    for number, (one, adds) in enumerate(says):
        runs.append(sweep(store, folder, f"run-{number}", one, adds=adds))
        while left and left[0][0] < len(runs) and left[0][1] <= len(runs):
            gone = left.pop(0)
            store.undo(runs[gone[0]].run_id, by="cid", why="a test")
        look()
    while left:
        gone = left.pop(0)
        if gone[0] < len(runs):
            store.undo(runs[gone[0]].run_id, by="cid", why="a test")
            look()


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(says=sweeps, undone=orders)
def test_after_any_undos_a_flag_shows_what_the_runs_that_are_left_would_have_made_of_it(
    tmp_path_factory: pytest.TempPathFactory, says: Sweeps, undone: list[tuple[int, int]]
) -> None:
    check(tmp_path_factory.mktemp("store"), says, undone)


@pytest.mark.mysql
def test_after_undos_a_flag_on_mysql_shows_what_the_runs_that_are_left_would_have_made_of_it(
    mysql_store: MakeMySqlStore, tmp_path: Path
) -> None:
    mysql_store(tmp_path)
    same, more = Says(1, 0.9), Says(2, 0.5, second=True)
    says = [
        (Says(0, 0.5), False),
        (same, False),
        (same, True),
        (more, False),
        (Says(3, 0.53, second=True), True),
        (Says(0, 0.9), False),
    ]
    check(tmp_path, says, [(1, 4), (0, 5), (3, 6), (2, 6), (4, 6)])
