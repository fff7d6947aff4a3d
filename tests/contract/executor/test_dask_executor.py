"""What only a cluster can do: lose workers, run isolated children, be foreign, be elsewhere."""

from __future__ import annotations

import contextlib
import logging.handlers
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import dask
import pytest
from distributed import Client, LocalCluster
from distributed.comm.core import CommClosedError

from batchscore.errors import Interrupted, Refused
from batchscore.executors import connect, dask_cluster
from batchscore.executors.connect import given_client, local_cluster, refuse_open_wire, remote_cluster
from batchscore.executors.dask_cluster import DaskExecutor
from batchscore.plan import Task
from batchscore.receipt import Failed, Finished, Outcome, Suspected
from tests import fake_attempts as fakes
from tests.contract.executor.test_executor import Tasks, drain


def test_a_lost_worker_accuses_only_what_had_started_there(tmp_path: Path) -> None:
    with local_cluster(fakes.die_the_first_time, n_workers=2) as executor:
        outcomes = drain(executor, Tasks(*(fakes.make_task(tmp_path, number) for number in range(12))))
    assert sorted(o.task.partition.number for o in outcomes if isinstance(o, Finished)) == list(range(12))
    assert [o.task.partition.number for o in outcomes if isinstance(o, Suspected)] == [1]


def test_a_worker_of_ours_that_is_lost_is_started_anew_however_long_that_takes(tmp_path: Path) -> None:
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "10ms"}),  # by default 15 s, which a slow start takes too
        local_cluster(fakes.die_the_first_time, n_workers=1, stall_s=30) as executor,
    ):
        outcomes = drain(executor, Tasks(*(fakes.make_task(tmp_path, number) for number in range(4))))
    assert sorted(o.task.partition.number for o in outcomes if isinstance(o, Finished)) == list(range(4))
    assert [(o.task.partition.number, o.reason) for o in outcomes if isinstance(o, Suspected)] == [(1, "worker_lost")]


def test_while_an_attempt_settles_its_worker_begins_the_next(tmp_path: Path) -> None:
    with local_cluster(fakes.settle_until_the_next_begins, n_workers=1) as executor:
        outcomes = drain(executor, Tasks(*(fakes.make_task(tmp_path, number) for number in range(2))))
    receipts = [outcome.receipt for outcome in outcomes if isinstance(outcome, Finished)]
    assert sorted(receipt.number for receipt in receipts) == [0, 1]
    assert [receipt.counts["met"] for receipt in receipts] == [1, 1]
    assert len({receipt.counts["pid"] for receipt in receipts}) == 1


def test_a_lost_worker_does_not_accuse_who_only_settled_there(tmp_path: Path) -> None:
    with local_cluster(fakes.die_while_another_settles, n_workers=1) as executor:
        outcomes = drain(executor, Tasks(*(fakes.make_task(tmp_path, number) for number in range(2))))
    assert sorted(o.task.partition.number for o in outcomes if isinstance(o, Finished)) == [0, 1]
    assert [o.task.partition.number for o in outcomes if isinstance(o, Suspected)] == [1]


def test_no_more_than_two_settle_beside_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    monkeypatch.setattr(dask_cluster, "get_worker", lambda: SimpleNamespace(state=SimpleNamespace(nthreads=2)))
    monkeypatch.setattr(dask_cluster, "secede", lambda: begun.append("the next"))
    monkeypatch.setattr(dask_cluster, "_settling", set())
    for number in range(7):
        dask_cluster.begin_the_next(f"key {number}")
    assert len(begun) == 4, "a disk that hangs collects attempts"


def test_who_is_lost_while_settling_again_and_again_is_suspected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_cluster, "MOST_FORGIVEN", 1)
    with local_cluster(fakes.die_settling, n_workers=1) as executor:
        outcomes = drain(executor, Tasks(*(fakes.make_task(tmp_path, number) for number in range(8))))
    assert sorted(o.task.partition.number for o in outcomes if isinstance(o, Finished)) == list(range(8))
    assert 0 in [o.task.partition.number for o in outcomes if isinstance(o, Suspected)]


@pytest.mark.parametrize(("prepare", "prepared"), [(fakes.prepare_slowly, 1), (fakes.fail_to_prepare, 0)])
def test_no_attempt_begins_before_its_worker_is_prepared_and_none_depends_on_it(
    tmp_path: Path, prepare: Callable[[], None], prepared: int
) -> None:
    with local_cluster(fakes.tell_whether_prepared, n_workers=2, prepare=prepare) as executor:
        outcomes = drain(executor, Tasks(*(fakes.make_task(tmp_path, number) for number in range(4))))
    assert [o.receipt.counts["prepared"] for o in outcomes if isinstance(o, Finished)] == [prepared] * 4


def test_a_worker_that_joins_later_is_prepared_before_its_first_attempt(tmp_path: Path) -> None:
    with local_cluster(fakes.die_then_tell, n_workers=1, prepare=fakes.prepare_slowly) as executor:
        outcomes = drain(executor, Tasks(*(fakes.make_task(tmp_path, number) for number in range(1, 4))))
    assert any(isinstance(outcome, Suspected) for outcome in outcomes), "a worker was lost"
    assert [o.receipt.counts["prepared"] for o in outcomes if isinstance(o, Finished)] == [1, 1, 1]


def test_a_driver_that_fails_while_workers_prepare_ends_without_a_word_of_theirs() -> None:
    hearing = logging.handlers.BufferingHandler(capacity=1_000)
    hearing.setLevel(logging.ERROR)
    logging.getLogger("distributed").addHandler(hearing)
    try:
        with contextlib.suppress(LookupError), local_cluster(fakes.fail_by_number, n_workers=2, prepare=fakes.prepare_slowly):
            raise LookupError("the driver's own mistake")
    finally:
        logging.getLogger("distributed").removeHandler(hearing)
    assert [record.getMessage() for record in hearing.buffer] == []


def test_an_isolated_attempt_dies_alone_and_that_is_a_failure(tmp_path: Path) -> None:
    with local_cluster(fakes.die_always_at_one, n_workers=1) as executor:
        (outcome,) = drain(executor, Tasks(fakes.make_task(tmp_path, 1, isolated=True)))
        (other,) = drain(executor, Tasks(fakes.make_task(tmp_path, 2, isolated=True)))
    assert isinstance(outcome, Failed)
    assert (outcome.reason, outcome.final) == ("worker_lost", False)
    assert isinstance(other, Finished)


def test_a_new_task_for_a_partition_in_flight_takes_the_place_of_the_older(tmp_path: Path) -> None:
    first = fakes.make_task(tmp_path, 0)
    tasks = Tasks(first)
    outcomes: list[Outcome] = []
    with local_cluster(fakes.wait_for_release, n_workers=2) as executor:
        replaced = False
        for batch in executor.outcomes(tasks):
            outcomes += batch
            if not replaced and list(tmp_path.glob("started-*")):
                tasks.tasks.append(fakes.make_task(tmp_path, 0))
                replaced = True
            elif len(list(tmp_path.glob("started-*"))) >= 2:
                (tmp_path / "go").touch()
    assert len(outcomes) == 1, "the older one's outcome is not heard"


def test_a_client_that_was_given_is_never_closed(tmp_path: Path) -> None:
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        outcomes = drain(given_client(fakes.succeed, client), Tasks(fakes.make_task(tmp_path, 0)))
        assert [type(outcome) for outcome in outcomes] == [Finished]
        assert client.status == "running"


def test_a_cluster_without_workers_is_waited_for_and_said_so(tmp_path: Path) -> None:
    tasks, reasons = Tasks(fakes.make_task(tmp_path, 0)), []
    with (
        LocalCluster(n_workers=0, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        executor = DaskExecutor(client, fakes.succeed)
        for batch in executor.outcomes(tasks):
            reasons.append(executor.waiting())
            if not batch:
                cluster.scale(1)
    assert "no workers" in reasons[0]


def test_a_local_cluster_listens_on_loopback_only() -> None:
    with local_cluster(fakes.succeed, n_workers=1) as executor:
        assert "127.0.0.1" in executor.describe()
        listening = _listening_addresses(os.getpid())
    assert listening <= {"127.0.0.1", "::1"}, listening


def _listening_addresses(pid: int) -> set[str]:
    import psutil

    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return {
        connection.laddr.ip
        for process in family
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    }


def test_a_scheduler_that_is_gone_when_asked_is_a_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise CommClosedError

    with local_cluster(fakes.succeed, n_workers=1) as executor:
        monkeypatch.setattr(dask_cluster, "ask_scheduler", gone)
        with pytest.raises(Interrupted, match="scheduler_unreachable"):
            drain(executor, Tasks(fakes.make_task(tmp_path, 0)))
        monkeypatch.setattr(Client, "scheduler_info", gone)
        with pytest.raises(Interrupted, match="scheduler_unreachable"):
            executor.describe()


def test_a_client_that_gave_up_its_scheduler_is_a_pause(tmp_path: Path) -> None:
    with LocalCluster(n_workers=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster, Client(cluster) as client:
        executor = given_client(fakes.succeed, client)
        client.close()
        with pytest.raises(Interrupted, match="scheduler_unreachable"):
            drain(executor, Tasks(fakes.make_task(tmp_path, 0)))
        with pytest.raises(Interrupted, match="scheduler_unreachable"):
            executor.describe()
        with pytest.raises(Refused, match="scheduler_unreachable"):
            given_client(fakes.succeed, client)


def test_a_scheduler_started_anew_before_we_looked_is_a_pause_and_nobody_is_suspected(tmp_path: Path) -> None:
    """Dask's client connects again by itself, and has cancelled every future by then."""

    class LostOnce(Tasks):
        def next(self) -> Task | None:
            task = super().next()
            if task is None:
                client.sync(lost)
            return task

    async def lost() -> None:
        for state in client.futures.values():
            state.cancel(reason=dask_cluster.CONNECTION_LOST, msg="")

    with LocalCluster(n_workers=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster, Client(cluster) as client:
        executor = given_client(fakes.wait_for_release, client)
        with pytest.raises(Interrupted, match="scheduler_unreachable"):
            drain(executor, LostOnce(fakes.make_task(tmp_path, 0)))
        (tmp_path / "go").touch()


def test_a_scheduler_that_does_not_answer_is_refused_with_what_to_do() -> None:
    with pytest.raises(Refused, match="scheduler_unreachable") as refusal, remote_cluster(fakes.succeed, "tcp://127.0.0.1:9"):
        pass
    assert "--scheduler" in str(refusal.value)


@pytest.mark.parametrize("address", ["tcp://10.0.0.7:8786", "tcp://scheduler.internal:8786", "ws://example.org:80"])
def test_a_scheduler_on_another_host_needs_tls_or_the_explicit_flag(address: str) -> None:
    with pytest.raises(Refused, match="scheduler_insecure"):
        refuse_open_wire(address, insecure=False)
    refuse_open_wire(address, insecure=True)


@pytest.mark.parametrize(
    "address", ["tls://10.0.0.7:8786", "tcp://127.0.0.1:8786", "tcp://localhost:8786", "tcp://[::1]:8786", "inproc://x"]
)
def test_loopback_and_tls_are_welcome(address: str) -> None:
    refuse_open_wire(address, insecure=False)


def test_a_scheduler_without_workers_is_refused_and_left_running(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "CONNECT_TIMEOUT_S", 2)
    with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster:
        here = cluster.scheduler_address
        with pytest.raises(Refused, match="dask worker ADDRESS") as refusal, remote_cluster(fakes.succeed, here):
            pass
        assert refusal.value.reason == "no_workers"
        assert cluster.status.name == "running"


@pytest.mark.parametrize("named", [{}, {"ca-file": "absent.pem", "client.cert": "absent.pem", "client.key": "absent.key"}])
def test_who_has_no_certificate_to_show_is_told_what_to_set_before_anybody_is_asked(named: dict[str, str]) -> None:
    configured = {f"distributed.comm.tls.{name}": value for name, value in named.items()}
    with dask.config.set(configured), pytest.raises(Refused, match="TLS__CA_FILE") as refusal:
        connect.connected("tls://10.0.0.7:8786", insecure=False)
    assert refusal.value.reason == "scheduler_uncertified"
