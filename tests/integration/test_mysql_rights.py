"""Four accounts suffice: a migrator, a committer, a reviewer, a reader; and preflight says what is missing."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from batchscore.database import open_engine
from batchscore.desk import Opinion
from batchscore.errors import Refused
from batchscore.flag import Disposition
from batchscore.store import Ledger, open_desk, open_reader, open_store, preflight
from batchscore.store.grants import grants
from batchscore.store.migrate import upgrade_database
from batchscore.store.place import engine_of
from batchscore.store.preflight import findings, is_on
from tests.conftest import MakeMySqlStore
from tests.contract.store.conftest import make_flag, make_plan
from tests.mysql_server import PASSWORD, MySqlServer

pytestmark = pytest.mark.mysql
HOUR = timedelta(hours=1)


def refuse(url: str, statement: str) -> None:
    with open_engine(url).begin() as connection, pytest.raises(sa.exc.DBAPIError):
        connection.execute(sa.text(statement))


def as_role(role: str, accounts: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHSCORE_URL_REVIEW", accounts[role])


@pytest.fixture
def accounts(mysql_server: MySqlServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Role → URL of an account with the rights that `db grants` gives it, on a new database that has its tables."""
    url = sa.make_url(mysql_server.make_database())
    database = str(url.database)
    made: dict[str, str] = {}
    for role, statements in grants(database).items():
        made[role] = mysql_server.make_account(database, role, statements)
        if role == "migrator":
            as_role(role, made, monkeypatch)
            upgrade_database(tmp_path, "review", "integer")
    return made


def test_each_account_can_do_its_work_and_no_more(
    accounts: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_role("committer", accounts, monkeypatch)
    store: Ledger = open_store(tmp_path, "integer")
    run, _ = store.open(make_plan(tmp_path), owner="me")
    store.release(run, iter([make_flag(number, run_id=run.run_id) for number in range(1, 4)]))
    store.close(run, "finished")
    as_role("reviewer", accounts, monkeypatch)
    desk = open_desk(tmp_path)
    assert len(desk.claim("abuse", by="ann", for_=HOUR, n=3)) == 3
    decision = Opinion(queue="abuse", account_id=1, disposition=Disposition.CLEARED, by="ann")
    assert desk.decide([decision]) == 1
    for statement in ("DELETE FROM flags", "UPDATE flags SET score = 0", "UPDATE dispositions SET state = 'open'"):
        refuse(accounts["reviewer"], statement)
    as_role("committer", accounts, monkeypatch)
    for statement in (
        "INSERT INTO dispositions SELECT * FROM dispositions", "UPDATE claims SET ended_at = 1", "UPDATE events SET n = 2",
        "INSERT INTO suppressions SELECT * FROM suppressions", "DELETE FROM flags", "UPDATE flags SET state = 'open'",
    ):  # fmt: skip
        refuse(accounts["committer"], statement)
    with pytest.raises(Refused, match="database_setup"):
        open_desk(tmp_path).decide([decision.model_copy(update={"account_id": 2})])
    assert open_store(tmp_path, "integer").undo(run.run_id, by="cid", why="to try").n_withdrawn == 0
    as_role("reviewer", accounts, monkeypatch)
    assert set(desk.return_claims("abuse", by="ann")) == {2, 3}, "and they are withdrawn, as their run was"
    assert desk.expire("abuse", by="cron", older_than=HOUR, apply=True) == 0
    as_role("reader", accounts, monkeypatch)
    assert open_reader(tmp_path).flag_states(run.run_id) == {"cleared": 1, "withdrawn": 2}
    with pytest.raises(Refused) as refusal:
        open_store(tmp_path, "integer")
    assert refusal.value.reason == "database_setup"
    said = str(refusal.value)
    assert "GRANT INSERT ON" in said
    assert "GRANT UPDATE ON" in said
    assert PASSWORD not in said


def test_the_statements_that_preflight_gives_mend_what_it_found(
    mysql_store: MakeMySqlStore, mysql_server: MySqlServer, tmp_path: Path
) -> None:
    folder = mysql_store(tmp_path)
    database = os.environ["BATCHSCORE_URL_REVIEW"].rpartition("/")[2]
    mysql_server.execute(
        "ALTER TABLE flags MODIFY score FLOAT NOT NULL",
        "ALTER TABLE queues CONVERT TO CHARACTER SET utf8mb3 COLLATE utf8mb3_general_ci",
        "ALTER TABLE sweeps ENGINE = MyISAM",
        database=database,
    )
    assert len(preflight(folder)[1]) == 3, "what doctor tells"
    with pytest.raises(Refused) as refusal:
        open_store(folder, "integer")
    assert refusal.value.reason == "database_setup"
    assert {problem.where for problem in refusal.value.problems} == {"flags.score", "table queues", "table sweeps"}
    mysql_server.execute(*(problem.remedy for problem in refusal.value.problems), database=database)
    open_store(folder, "integer")


def test_a_reviewers_account_is_told_the_rights_on_columns_that_an_upgrade_brought(
    accounts: dict[str, str], mysql_server: MySqlServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for role in ("committer", "reviewer"):
        as_role(role, accounts, monkeypatch)
        assert preflight(tmp_path) == (role, ())
    url = sa.make_url(accounts["reviewer"])
    mysql_server.execute(f"REVOKE UPDATE (turns, turned_at) ON {url.database}.flags FROM '{url.username}'@'%'")
    role, (problem,) = preflight(tmp_path)
    assert (role, problem.where) == ("reviewer", "table flags")
    mysql_server.execute(problem.remedy)
    assert preflight(tmp_path) == ("reviewer", ())


def test_a_reviewers_account_that_would_control_a_run_is_told_whose_that_is_and_no_rights(
    accounts: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_role("reviewer", accounts, monkeypatch)
    with pytest.raises(Refused) as refusal:
        open_store(tmp_path, "integer")
    (problem,) = refusal.value.problems
    assert (refusal.value.reason, problem.where) == ("database_setup", "account")
    assert "committer" in problem.remedy


@pytest.mark.parametrize(("said", "on"), [("0", False), ("'OFF'", False), ("1", True), ("'ON'", True), ("'NO_LOCK'", True)])
def test_a_servers_switch_is_a_number_or_a_word(mysql_server: MySqlServer, said: str, *, on: bool) -> None:
    with open_engine(mysql_server.make_database()).connect() as connection:
        assert is_on(connection, said) is on


def test_a_read_only_server_and_one_of_small_packets_are_refused(
    mysql_store: MakeMySqlStore, mysql_server: MySqlServer, accounts: dict[str, str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    as_role("committer", accounts, monkeypatch)
    (packet,) = mysql_server.execute("SELECT @@GLOBAL.max_allowed_packet")[0]
    mysql_server.execute("SET GLOBAL read_only = ON", "SET GLOBAL max_allowed_packet = 65536")
    try:
        with open_engine(accounts["committer"]).connect() as connection:
            found = list(findings(connection))
        assert {problem.what.split(" ")[1] for problem in found} >= {"read-only", "statements"}
        with pytest.raises(Refused, match="database_setup"):
            open_store(tmp_path, "integer")
        as_role("reviewer", accounts, monkeypatch)
        assert "read-only" in str(preflight(tmp_path)[1])
        as_role("committer", accounts, monkeypatch)
    finally:
        mysql_server.execute("SET GLOBAL read_only = OFF", f"SET GLOBAL max_allowed_packet = {packet}")
    with engine_of(tmp_path).connect() as connection:
        assert list(findings(connection)) == []
