"""Whatever happens to the connection, at whatever statement, what a driver writes stands once. Real server, failing network."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from batchscore.database import open_engine
from batchscore.desk import Opinion
from batchscore.errors import CommitUnknown, TryAgain
from batchscore.flag import Disposition
from batchscore.hold import Finding
from batchscore.plan import Reference, Stage
from batchscore.store import Ledger, flags, open_desk, open_reader, open_store
from tests.conftest import MakeMySqlStore
from tests.contract.store.conftest import make_flag, make_partitions, make_plan, make_receipt, make_task
from tests.mysql_proxy import FailingProxy, Fault
from tests.mysql_server import PASSWORD, MySqlServer

pytestmark = pytest.mark.mysql
READ_S = 2  # one would do, but where a machine is busy an honest server takes as long


@pytest.fixture
def proxy(mysql_server: MySqlServer) -> Iterator[FailingProxy]:
    proxy = FailingProxy(mysql_server.host, mysql_server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def folder(
    proxy: FailingProxy,
    mysql_server: MySqlServer,
    mysql_store: MakeMySqlStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A store whose URL leads through the proxy, with short timeouts."""
    import os

    folder = mysql_store(tmp_path / "store")
    url = sa.make_url(os.environ["BATCHSCORE_URL_REVIEW"])
    monkeypatch.setenv("BATCHSCORE_DIRECT", url.render_as_string(hide_password=False))
    through = url.set(host="127.0.0.1", port=proxy.port).update_query_dict({"read_timeout": str(READ_S), "connect_timeout": "2"})
    monkeypatch.setenv("BATCHSCORE_URL_REVIEW", through.render_as_string(hide_password=False))
    monkeypatch.setattr(flags, "ROWS_A_TRANSACTION", 4)
    monkeypatch.setattr(flags, "ROWS_A_STATEMENT", 2)
    return folder


def story(store: Ledger, folder: Path, name: str) -> str:
    """Every kind of write once, as a run makes them."""
    run, _ = store.open(make_plan(folder, name=name), owner="me")
    partitions = make_partitions(4, world=name)
    store.note_executor(run, "inline")
    store.lay_out(run, Stage.ROLLUP, partitions)
    store.commit(run, [make_receipt(partition) for partition in partitions[:2]])
    assert store.count_suspicion(run, make_task(run.run_id, partitions[2])) == 1
    assert not store.count_failure(run, make_task(run.run_id, partitions[2]), "attempt_failed", "x", quarantine_at=2)
    assert store.count_failure(run, make_task(run.run_id, partitions[3]), "input_corrupt", "y", quarantine_at=1)
    store.commit(run, [make_receipt(partitions[2])])
    store.renew(run)
    store.record_decision(run, Reference(path="d", sha256="1"), Reference(path="m", sha256="1"))
    count = store.release(run, iter([make_flag(n, run_id=run.run_id, queue=name, rank=n) for n in range(1, 8)]))
    assert (count.n_flags, count.n_overtaken) == (7, 0)
    store.close(run, "finished")
    return run.run_id


def written(run_id: str, name: str) -> dict[str, list[tuple[object, ...]]]:
    """All that stands of a run, but for times, epochs and marks."""
    import os

    queries = {
        "runs": "SELECT state, decision_path, memory_path, executor, released_at IS NOT NULL FROM runs WHERE run_id = :run",
        "stages": "SELECT stage FROM stages WHERE run_id = :run",
        "partitions": "SELECT number, state, n_failures, n_suspicions, reason FROM partitions WHERE run_id = :run ORDER BY 1",
        "attempts": "SELECT number, ordinal, outcome, reason FROM attempts WHERE run_id = :run ORDER BY number, ordinal",
        "outputs": "SELECT COUNT(*) FROM run_outputs WHERE run_id = :run",
        "flags": "SELECT account_id, `rank`, state, open_marker FROM flags WHERE run_id = :run ORDER BY account_id",
        "generations": "SELECT COUNT(*) FROM runs WHERE name = :name",
        "in the queue": "SELECT COUNT(*) FROM review_queue WHERE queue = :name",
    }
    engine = open_engine(os.environ["BATCHSCORE_DIRECT"], read_only=True)
    with engine.connect() as connection:
        found = {
            what: [tuple(row) for row in connection.execute(sa.text(query), {"run": run_id, "name": name})]
            for what, query in queries.items()
        }
    engine.dispose()
    return found


# Every command in turn takes long: the suite has a cut of it, `make chaos` the whole.
STRIDE = 1 if os.environ.get("BATCHSCORE_EVERY_FAULT") else 10


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize(
    ("fault", "every"),
    [("cut before", 1), ("cut after", 1), ("silent before", 12), ("silent after", 12), (1213, 3), (1205, 3), (1040, 5),
     (1053, 3), (1290, 3), (1792, 5), (1836, 5)],
)  # fmt: skip
def test_a_fault_at_any_statement_changes_nothing_of_what_is_written(
    fault: Fault, every: int, folder: Path, proxy: FailingProxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    proxy.disarm()
    undisturbed = written(story(open_store(folder, "integer"), folder, "calm"), "calm")
    n_commands = proxy.n_commands
    assert n_commands > 50
    hit = set()
    for at in range(1, n_commands + 1, every * STRIDE):
        proxy.arm(fault, at)
        name, began = f"run-{at}", time.monotonic()
        run_id = story(open_again(folder), folder, name)
        assert time.monotonic() - began < READ_S + 5 + 2, f"{fault} at command {at} ({proxy.happened_on})"
        if not proxy.happened_on:  # where a connection grew old on a slow machine, the undisturbed story has a few commands more
            assert n_commands - 10 < at > proxy.n_commands, f"command {at} was not reached"
            proxy.disarm()
            continue
        hit.add(proxy.happened_on)
        proxy.disarm()
        assert written(run_id, name) == undisturbed, f"{fault} at command {at} ({proxy.happened_on})"
    assert hit
    if STRIDE == 1:
        assert {"INSERT", "UPDATE", "SELECT"} <= hit
        assert every > 1 or "COMMIT" in hit
    assert PASSWORD not in caplog.text


def open_again(folder: Path) -> Ledger:
    """Opened by somebody who tries again, as a person would: opening has no minute of its own."""
    try:
        return open_store(folder, "integer")
    except TryAgain:
        return open_store(folder, "integer")


def test_a_commit_whose_answer_is_lost_a_hundred_times_is_never_done_twice(
    folder: Path, proxy: FailingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(folder, "integer")
    run, _ = store.open(make_plan(folder, name="often"), owner="me")
    partitions = make_partitions(1)
    store.lay_out(run, Stage.ROLLUP, partitions)
    task = make_task(run.run_id, partitions[0])
    proxy.disarm()
    store.count_suspicion(run, task)
    n_commands = proxy.n_commands
    for n in range(2, 102):
        proxy.arm("cut after" if n % 2 else "cut before", n_commands)
        assert store.count_suspicion(run, task) == n
        assert proxy.happened_on == "COMMIT"
    (row,) = store.reader().failures(run.run_id)
    assert row.n_suspicions == 101


@pytest.mark.parametrize("fault", ["cut before", "cut after", 1213])
def test_a_hold_and_its_approval_stand_once_whichever_command_fails(folder: Path, proxy: FailingProxy, fault: Fault) -> None:
    store = open_store(folder, "integer")
    finding = Finding(of="mails", n=3, low=10, high=40, what="fewer rows than usual")

    def held_and_approved(name: str, at: int) -> str:
        run, _ = store.open(make_plan(folder, name=name), owner="me")
        proxy.disarm()
        if at:
            proxy.arm(fault, at)
        store.approve(store.hold(run, "input", [finding], "held"), by="Ada", because="known")
        return run.run_id

    held_and_approved("calm", 0)
    for at in range(1, proxy.n_commands + 1):
        run_id = held_and_approved(f"run-{at}", at)
        assert proxy.happened_on, f"command {at} was not reached"
        proxy.disarm()
        (hold,) = store.reader().holds(run_id)
        assert (hold.approved_by, hold.findings, store.reader().run(run_id).state) == ("Ada", (finding,), "held")


def test_more_flags_are_counted_though_the_commits_answer_is_lost(folder: Path, proxy: FailingProxy) -> None:
    store = open_store(folder, "integer")
    run, _ = store.open(make_plan(folder, name="more"), owner="me")
    store.release(run, iter([make_flag(1, run_id=run.run_id)]))

    def released_more(account_id: int) -> int:
        more = iter([make_flag(account_id, run_id=run.run_id, rank=account_id)])
        return store.release_more(run.run_id, more, by="cron").n_flags

    proxy.disarm()
    assert released_more(2) == 1
    n_commands = proxy.n_commands
    faults: tuple[Fault, ...] = ("cut before", "cut after")
    for account_id, fault in enumerate(faults, start=3):
        proxy.arm(fault, n_commands)
        assert released_more(account_id) == 1
        assert proxy.happened_on == "COMMIT"
    assert [event.account_id for event in store.reader().events(0, limit=10)] == [1, 2, 3, 4]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", ["cut before", "cut after", 1213])
def test_what_people_write_stands_once_whichever_command_fails(folder: Path, proxy: FailingProxy, fault: Fault) -> None:
    store, desk, reader = open_store(folder, "integer"), open_desk(folder), open_reader(folder)

    def reviewed(name: str, at: int) -> str:
        run, _ = store.open(make_plan(folder, name=name), owner="me")
        store.release(run, iter([make_flag(n, run_id=run.run_id, queue=name, rank=n) for n in (1, 2, 3)]))
        proxy.disarm()
        if at:
            proxy.arm(fault, at)
        assert len(desk.claim(name, by="ann", for_=timedelta(hours=1), n=2)) == 2
        said = Opinion(queue=name, account_id=1, disposition=Disposition.CLEARED, by="ann", evidence=1)
        desk.decide([said])
        assert desk.return_claims(name, by="ann") == (2,)
        return run.run_id

    reviewed("calm", 0)
    for at in range(1, proxy.n_commands + 1, 1 if STRIDE == 1 else 7):
        run_id = reviewed(f"run-{at}", at)
        proxy.disarm()
        assert reader.flag_states(run_id) == {"cleared": 1, "open": 2}
        assert reader.misstated(run_id) == 0
        assert [event.act.value for event in reader.account_events(f"run-{at}", 1)] == ["opened", "claimed", "decided"]
    numbers = [event.number for event in reader.events(0, limit=100_000)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_database_that_stays_away_ends_in_an_error_that_can_be_resumed(
    folder: Path, proxy: FailingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from batchscore.database import transaction

    monkeypatch.setattr(transaction, "REDO_S", 1.0)
    store = open_store(folder, "integer")
    run, _ = store.open(make_plan(folder), owner="me")
    proxy.close()
    with pytest.raises((TryAgain, CommitUnknown)) as failure:
        store.renew(run)
    assert failure.value.exit_code == 5
    assert PASSWORD not in str(failure.value)
    assert failure.value.__cause__ is None
