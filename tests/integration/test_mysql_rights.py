"""Three accounts suffice: a migrator, a committer, a reader, as the README grants them; and preflight says what is missing."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import sqlalchemy as sa

from batchscore.database import open_engine
from batchscore.errors import Refused
from batchscore.store import Ledger, open_reader, open_store, preflight
from batchscore.store.migrate import upgrade_database
from batchscore.store.place import engine_of
from batchscore.store.preflight import findings
from tests.conftest import MakeMySqlStore
from tests.contract.store.conftest import make_flag, make_plan
from tests.mysql_server import PASSWORD, MySqlServer

pytestmark = pytest.mark.mysql
README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def accounts(mysql_server: MySqlServer) -> dict[str, str]:
    """Role → URL of an account with the rights that the README gives it, on a new database."""
    url = sa.make_url(mysql_server.make_database())
    database = str(url.database)
    made = {}
    for role in ("migrator", "committer", "reader"):
        user = f"{role}_{database[-12:]}"
        (grant,) = re.findall(rf"^(GRANT .* TO {role});$", README.read_text(), re.MULTILINE)
        mysql_server.execute(
            f"CREATE USER '{user}'@'%' IDENTIFIED BY '{PASSWORD}'",
            grant.replace("review.*", f"`{database}`.*").replace(f"TO {role}", f"TO '{user}'@'%'"),
        )
        made[role] = mysql_server.url(database, user=user)
    return made


def as_role(role: str, accounts: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHSCORE_URL_REVIEW", accounts[role])


def test_each_account_can_do_its_work_and_no_more(
    accounts: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_role("committer", accounts, monkeypatch)
    with pytest.raises(Refused):
        upgrade_database(tmp_path, "review", "integer")
    as_role("migrator", accounts, monkeypatch)
    upgrade_database(tmp_path, "review", "integer")
    as_role("committer", accounts, monkeypatch)
    store: Ledger = open_store(tmp_path, "integer")
    run, _ = store.open(make_plan(tmp_path), owner="me")
    store.release(run, iter([make_flag(1, run_id=run.run_id)]))
    store.close(run, "finished")
    as_role("reader", accounts, monkeypatch)
    assert len(open_reader(tmp_path).queue(None, limit=5)) == 1
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
    assert len(preflight(folder)) == 3, "what doctor tells"
    with pytest.raises(Refused) as refusal:
        open_store(folder, "integer")
    assert refusal.value.reason == "database_setup"
    assert {problem.where for problem in refusal.value.problems} == {"flags.score", "table queues", "table sweeps"}
    mysql_server.execute(*(problem.remedy for problem in refusal.value.problems), database=database)
    open_store(folder, "integer")


def test_a_read_only_server_and_one_of_small_packets_are_refused(
    mysql_store: MakeMySqlStore, mysql_server: MySqlServer, accounts: dict[str, str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    as_role("migrator", accounts, monkeypatch)
    upgrade_database(tmp_path, "review", "integer")
    as_role("committer", accounts, monkeypatch)
    (packet,) = mysql_server.execute("SELECT @@GLOBAL.max_allowed_packet")[0]
    mysql_server.execute("SET GLOBAL read_only = ON", "SET GLOBAL max_allowed_packet = 65536")
    try:
        with open_engine(accounts["committer"]).connect() as connection:
            found = list(findings(connection))
        assert {problem.what.split(" ")[1] for problem in found} >= {"read-only", "statements"}
        with pytest.raises(Refused, match="database_setup"):
            open_store(tmp_path, "integer")
    finally:
        mysql_server.execute("SET GLOBAL read_only = OFF", f"SET GLOBAL max_allowed_packet = {packet}")
    with engine_of(tmp_path).connect() as connection:
        assert list(findings(connection)) == []
