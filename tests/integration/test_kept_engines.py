"""An engine that only reads is kept by its process: what changed at the server meanwhile is met by its next connection."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from batchscore.database import read, reading_engine
from batchscore.errors import Refused
from tests.mysql_server import PASSWORD, MySqlServer

pytestmark = pytest.mark.mysql


def one(connection: sa.Connection) -> int:
    return int(connection.exec_driver_sql("SELECT 1").scalar_one())


def test_a_kept_engine_has_no_connection_and_a_changed_password_is_told_as_such(mysql_server: MySqlServer) -> None:
    database = mysql_server.make_database().rpartition("/")[2]
    url = mysql_server.make_account(database, "reader", [f"GRANT SELECT ON {database}.* TO reader"])
    user = sa.make_url(url).username
    with reading_engine(url) as engine:
        assert read(engine, one, where="here") == 1
        first = engine
    connected = f"SELECT COUNT(*) FROM information_schema.processlist WHERE user = '{user}'"
    while mysql_server.execute(connected) != [(0,)]:  # the server notices a moment later
        pass
    with reading_engine(url) as engine:
        assert engine is first
        assert read(engine, one, where="here") == 1
    mysql_server.execute(f"ALTER USER '{user}'@'%' IDENTIFIED BY 'another'")
    with reading_engine(url) as engine, pytest.raises(Refused, match="password") as refusal:
        read(engine, one, where="here")
    assert PASSWORD not in str(refusal.value)
    with reading_engine(mysql_server.url(database, user=user, password="another")) as engine:
        assert engine is not first
        assert read(engine, one, where="here") == 1
